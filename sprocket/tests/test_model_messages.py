"""Jobs and outcomes on their way between the worker and its model's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from sprocket.errors import ChannelError
from sprocket.job import Job
from sprocket.model_messages import (
    fault_of_fields,
    fields_of_fault,
    fields_of_job,
    fields_of_outcome,
    job_of_fields,
    outcome_of_fields,
)
from sprocket.outcome import Canceled, Done, Exited, Failed, Fault, Outcome
from sprocket.outputs import Encoded, FileOutput


def test_the_model_sees_all_of_a_job_but_the_token() -> None:
    job = Job("a", {"n": 1}, priority=3, info={"by": "x"}, headers={"h": "v"}, queued=True, attempt_token="secret")
    copy = job_of_fields(fields_of_job(job))
    assert [getattr(copy, name) for name in ("id", "payload", "priority", "info", "headers", "queued")] == [
        "a",
        {"n": 1},
        3,
        {"by": "x"},
        {"h": "v"},
        True,
    ]
    assert copy.attempt_token is None
    assert copy.keeps_chunks
    job.keeps_chunks = False
    assert not job_of_fields(fields_of_job(job)).keeps_chunks


@pytest.mark.parametrize(
    "outcome",
    [
        Done(Encoded(("{}",))),
        Done(Encoded(('{"ü":"ü"}',))),
        Failed("E: x", "trace"),
        Failed("E: x", input_path=("a", 1)),
        Failed("E: x", input_path=()),
        Canceled(),
        Exited(3),
    ],
)
def test_outcomes_arrive_as_they_were(outcome: Outcome) -> None:
    assert outcome_of_fields(*fields_of_outcome(outcome)) == outcome


def test_files_arrive_with_their_whole_path_and_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arrived = outcome_of_fields(*fields_of_outcome(Done(Encoded(('{"ü":', FileOutput("x.png"), "}")))))
    assert arrived == Done(Encoded(('{"ü":', FileOutput(tmp_path / "x.png"), "}")))


def test_faults_arrive_as_they_were() -> None:
    assert fault_of_fields(fields_of_fault(Fault("text", 3))) == Fault("text", 3)
    assert fault_of_fields(fields_of_fault(None)) is None


def test_an_outcome_that_is_none_is_refused() -> None:
    with pytest.raises(ChannelError, match="'perhaps'"):
        outcome_of_fields({"kind": "perhaps"}, b"")
