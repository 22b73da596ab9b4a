"""What is shown of a watched job."""

import pytest

from jig.live import JobView
from jig.output import Output


def test_chunks_that_came_with_the_result_alone_are_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    view = JobView(Output(json=False))
    view.chunks({"status": "running", "attempt": 1, "chunks": ["to", "be"]})
    view.chunks({"status": "done", "attempt": 1, "chunks": None, "outputs": {"chunks": ["to", "be", "."]}})
    assert capsys.readouterr().err.split() == ["to", "be", "."]


def test_the_result_of_a_job_that_has_not_streamed_is_no_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    view = JobView(Output(json=False))
    view.chunks({"status": "done", "attempt": 1, "chunks": None, "outputs": {"chunks": ["a result"]}})
    assert capsys.readouterr().err == ""


def test_a_long_reason_is_said_once_and_then_in_brief(capsys: pytest.CaptureFixture[str]) -> None:
    view = JobView(Output(json=False))
    looks = [(3, "long", 0), (3, "long", 5), (2, "long", 6), (2, "long", 11), (1, "other", 12), (1, "long", 13)]
    for position, why, seconds in [*looks, (1, "long", 24), (1, "long", 40)]:
        view.update("pending", f"{position}: {why} reason", seconds, f"{position}: {why}")
    said = [line.split(maxsplit=2)[2] for line in capsys.readouterr().err.splitlines()]
    assert said == ["3: long reason", "2: long", "1: other reason", "1: long"]
