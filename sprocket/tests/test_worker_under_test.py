"""`sprocket.testing.worker`: a whole worker against a queue in the test's own process."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import sprocket
from sprocket import testing


class Scribe(sprocket.Sprocket):
    """The payload's `do` says how predict is to behave."""

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return getattr(self, args.get("do", "echo"))(args)  # type: ignore[no-any-return]

    def echo(self, args: dict[str, Any]) -> dict[str, Any]:
        return args

    def raise_(self, args: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no such page")

    def nan(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"score": float("nan")}

    def exit(self, args: dict[str, Any]) -> dict[str, Any]:
        sys.exit(3)

    def until_cancelled(self, args: dict[str, Any]) -> dict[str, Any]:
        sprocket.emit_info({"step": "waiting"})
        while not sprocket.cancelled():
            time.sleep(0.001)
        return {}

    def copy(self, args: dict[str, Any]) -> dict[str, Any]:
        path = Path(args["folder"]) / "copy.txt"
        path.write_text(Path(args["page"]).read_text().upper())
        return {"page": sprocket.FileOutput(path), "read_from": args["page"]}

    def hang(self, args: dict[str, Any]) -> dict[str, Any]:
        HANGING.wait(30)
        return {}


HANGING = threading.Event()


class Crowd(sprocket.AsyncSprocket):
    concurrency = 4

    async def setup(self) -> None:
        self.met = asyncio.Event()
        self.here = 0

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        self.here += 1
        if self.here == 4:
            self.met.set()
        await self.met.wait()
        return {"n": args["n"]}


class Requests(sprocket.SprocketWorker):
    def predict(self, request: sprocket.Request) -> dict[str, Any]:
        return {"id": request.id, "priority": request.priority, "by": request.info.get("by")}


class BrokenSetup(sprocket.Sprocket):
    def setup(self) -> None:
        raise RuntimeError("no weights at /models")

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


class BrokenShutdown(Scribe):
    def shutdown(self) -> None:
        raise RuntimeError("cannot let go")


class ExitingSetup(Scribe):
    def setup(self) -> None:
        sys.exit(7)


def test_jobs_go_in_and_results_come_out() -> None:
    with testing.worker(Scribe) as scribe:
        jobs = [scribe.submit({"n": n, "deep": [{"x": None}]}) for n in range(20)]
        assert [job.result() for job in jobs] == [{"n": n, "deep": [{"x": None}]} for n in range(20)]
        assert [(job.status, job.attempts) for job in jobs] == [("done", 1)] * 20


def test_a_request_carries_what_was_submitted() -> None:
    with testing.worker(Requests()) as worker:
        job = worker.submit({}, priority=7, info={"by": "ada"})
        assert job.result() == {"id": job.id, "priority": 7, "by": "ada"}


def test_a_failed_job_raises_the_workers_text_and_the_models_traceback() -> None:
    with testing.worker(Scribe) as scribe:
        job = scribe.submit({"do": "raise_"})
        with pytest.raises(testing.JobFailedError, match="ValueError: no such page") as raised:
            job.result()
        assert raised.value.traceback
        assert "in raise_" in str(raised.value)
        assert "site-packages" not in raised.value.traceback
        with pytest.raises(testing.JobFailedError, match="NaN"):
            scribe.submit({"do": "nan"}).result()
        assert job.info["error"] == "ValueError: no such page"
        assert scribe.submit({"still": "alive"}).result() == {"still": "alive"}


def test_a_cancel_and_info_are_seen() -> None:
    with testing.worker(Scribe) as scribe:
        job, other = scribe.submit({"do": "until_cancelled"}), scribe.submit({})
        job.wait(lambda job: job.info.get("step") == "waiting")
        assert (job.status, other.status) == ("running", "pending")
        other.cancel()
        job.cancel()
        for canceled in (job, other):
            with pytest.raises(testing.JobCanceledError):
                canceled.result()


def test_concurrent_jobs_run_at_a_time() -> None:
    with testing.worker(Crowd) as crowd:
        jobs = [crowd.submit({"n": n}) for n in range(4)]
        assert [job.result()["n"] for job in jobs] == [0, 1, 2, 3]


def test_files_go_in_and_come_out_as_local_paths(tmp_path: Path) -> None:
    page = tmp_path / "a page.txt"
    page.write_text("hello")
    with testing.worker(Scribe) as scribe:
        outputs = scribe.submit({"do": "copy", "page": page, "folder": str(tmp_path)}).result()
        assert Path(outputs["page"]).read_text() == "HELLO"
        assert outputs["page"] != str(tmp_path / "copy.txt")
        assert outputs["read_from"] != str(page)
    assert not Path(outputs["page"]).exists()


def test_what_cannot_be_submitted_is_said(tmp_path: Path) -> None:
    with testing.worker(Scribe) as scribe:
        with pytest.raises(FileNotFoundError, match=r"names the file .*nowhere\.png"):
            scribe.submit({"page": tmp_path / "nowhere.png"})
        with pytest.raises(TypeError, match="object is neither JSON nor a Path"):
            scribe.submit({"thing": object()})


def test_a_worker_that_exits_is_told_to_who_waits() -> None:
    with testing.worker(Scribe) as scribe:
        job = scribe.submit({"do": "exit"})
        with pytest.raises(testing.WorkerEndedError, match="exit code 3, and left the job running") as raised:
            job.result()
        assert raised.value.exit_code == 3


def test_a_wait_is_bounded() -> None:
    with testing.worker(Scribe) as scribe:
        job = scribe.submit({"do": "until_cancelled"})
        with pytest.raises(testing.JobTimeoutError, match=r"not within 0\.05 s: the job is"):
            job.result(timeout_seconds=0.05)
        job.cancel()


def test_what_setup_raises_comes_through() -> None:
    with pytest.raises(RuntimeError, match="no weights at /models"), testing.worker(BrokenSetup):
        pytest.fail("the block must not begin")


def test_an_exit_in_setup_is_told() -> None:
    with pytest.raises(testing.WorkerEndedError, match="exit code 7 during setup"), testing.worker(ExitingSetup):
        pytest.fail("the block must not begin")


def test_what_shutdown_raises_comes_through_but_hides_no_failure_of_the_test() -> None:
    with pytest.raises(RuntimeError, match="cannot let go"), testing.worker(BrokenShutdown) as worker:
        assert worker.submit({}).result() == {}
    with pytest.raises(ZeroDivisionError), testing.worker(BrokenShutdown):
        raise ZeroDivisionError


def test_a_job_that_outlasts_the_block_is_an_error() -> None:
    def block() -> None:
        with testing.worker(Scribe, grace_period_seconds=0.2) as scribe:
            scribe.submit({"do": "hang"}).wait(lambda job: job.status == "running")

    with pytest.raises(testing.WorkerEndedError, match=r"still in hand 0\.2 s after"):
        block()
    HANGING.set()


def test_what_is_no_worker_is_refused() -> None:
    with pytest.raises(sprocket.LoadError, match="is no worker"), testing.worker(object()):  # type: ignore[arg-type]
        pytest.fail("the block must not begin")


def test_the_workers_own_http_answers() -> None:
    with testing.worker(Scribe) as scribe, urllib.request.urlopen(f"{scribe.base_url}/health") as answer:
        assert json.load(answer) == {"status": "healthy"}


def test_nothing_is_left_behind() -> None:
    before = threading.active_count()
    for _ in range(20):
        with testing.worker(Scribe) as scribe:
            scribe.submit({}).result()
    gc.collect()
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_it_can_be_imported_without_an_http_library() -> None:
    code = "import sprocket.testing, sys; print('aiohttp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
