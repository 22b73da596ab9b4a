"""What is shown of a job that streams."""

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
