from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable

import pytest

import sprocket
from sprocket.job import Job, active


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_info_is_merged_key_by_key_and_taken_once() -> None:
    job = Job("1", {})
    with active(job):
        sprocket.emit_info({"a": 1, "b": 1})
        sprocket.emit_info({"b": 2})
    assert job.take_news() == {"a": 1, "b": 2}
    assert job.take_news() == {}


def test_info_that_could_not_be_sent_does_not_undo_newer_info() -> None:
    job = Job("1", {})
    job.add_info({"a": 1, "b": 1})
    unsent = job.take_news()
    job.add_info({"b": 2})
    job.put_back_news(unsent)
    assert job.take_news() == {"a": 1, "b": 2}


def test_a_thread_of_the_model_finds_the_only_job() -> None:
    job = Job("1", {})
    with active(job):
        in_thread(lambda: sprocket.emit_info({"a": 1}))
    assert job.take_news() == {"a": 1}


def test_with_two_jobs_a_foreign_thread_guesses_neither() -> None:
    one, two = Job("1", {}), Job("2", {})
    with active(one), active(two):
        in_thread(lambda: sprocket.emit_info({"a": 1}))
        sprocket.emit_info({"b": 1})
    assert (one.take_news(), two.take_news()) == ({}, {"b": 1})


def test_info_limit_is_4096_bytes() -> None:
    overhead = len(json.dumps({"t": ""}))
    sprocket.emit_info({"t": "x" * (4095 - overhead)})
    with pytest.raises(sprocket.InfoError, match="less than 4096 bytes of JSON, this is 4096"):
        sprocket.emit_info({"t": "x" * (4096 - overhead)})


@pytest.mark.parametrize("info", [["list"], "text", None, {"a": object()}, {"a": float("nan")}])
def test_info_must_be_a_json_object(info: object) -> None:
    with pytest.raises(sprocket.InfoError):
        sprocket.emit_info(info)  # type: ignore[arg-type]


def test_outside_of_a_job_nothing_is_cancelled_or_emitted() -> None:
    assert sprocket.cancelled() is False
    sprocket.emit_info({"a": 1})


def test_cancelled_is_noticed_when_asked() -> None:
    job = Job("1", {})
    with active(job):
        assert not sprocket.cancelled()
        job.cancel()
        assert not job.cancel_seen
        assert sprocket.cancelled()
    assert job.cancel_seen


def test_a_cancel_that_came_first_interrupts_at_once() -> None:
    job, calls = Job("1", {}), []
    job.cancel()
    with job.interruptible(lambda: calls.append(1)):
        pass
    job.cancel()
    assert calls == [1]


def test_log_lines_carry_the_job(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sprocket"), active(Job("job-7", {})):
        sprocket.log.info("half way")
    sprocket.log.warning("alone")
    assert [record.__dict__["job_id"] for record in caplog.records] == ["job-7", "-"]
