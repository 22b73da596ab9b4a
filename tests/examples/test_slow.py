"""slow: it takes its time, fails when asked to, lets itself be cancelled, and finishes its job in a drain."""

import json
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from sprocket import Sprocket
from sprocket.testing import run_job

FOREVER_SECONDS = 3600
SOON_SECONDS = 60


@pytest.fixture(scope="module")
def slow(load: Callable[[str], ModuleType]) -> type[Sprocket]:
    worker: type[Sprocket] = load("slow").Slow
    return worker


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_takes_as_long_as_it_is_told(slow: type[Sprocket], seconds: float) -> None:
    started_at = time.monotonic()

    assert run_job(slow, {"seconds": seconds}) == {"slept_seconds": seconds}

    assert seconds <= time.monotonic() - started_at < seconds + SOON_SECONDS


def test_fails_when_asked_to(slow: type[Sprocket]) -> None:
    with pytest.raises(RuntimeError, match="failed on purpose"):
        run_job(slow, {"seconds": 0, "fail": True})


@pytest.mark.parametrize("seconds", [None, "5", True, -1, 3601, [5]])
def test_a_time_that_cannot_be_slept_is_refused(slow: type[Sprocket], seconds: Any) -> None:
    with pytest.raises(ValueError, match=r'"seconds" must be a number from 0 to 3600, for example {"seconds": 5}'):
        run_job(slow, {"seconds": seconds})


@pytest.mark.parametrize("fail", ["yes", None, 2])
def test_fail_is_true_or_false(slow: type[Sprocket], fail: Any) -> None:
    with pytest.raises(ValueError, match='"fail" must be true or false'):
        run_job(slow, {"seconds": 0, "fail": fail})


@pytest.fixture(scope="module")
def worker(serve: Callable[[str, str], Any]) -> Any:
    return serve("slow", "worker:Slow")


def test_serves_over_http_and_is_healthy_while_busy(worker: Any) -> None:
    with worker.asked({"seconds": 0.2}) as request:
        assert json.load(request.getresponse()) == {"slept_seconds": 0.2}

    with worker.asked({"seconds": FOREVER_SECONDS}):
        worker.wait_until(lambda: worker.requests_in_flight() == 1)
        assert worker.health() == 200
        assert worker.generate({"seconds": 0}).status_code == 503, "one job at a time"
    worker.wait_until(lambda: worker.generate({"seconds": 0}).status_code == 200)

    failure = worker.generate({"seconds": 0, "fail": True})
    assert (failure.status_code, failure.json()["error"]["code"]) == (500, "predict_failed")


def test_a_client_that_hangs_up_cancels_its_job_at_once(worker: Any) -> None:
    with worker.asked({"seconds": FOREVER_SECONDS}):
        worker.wait_until(lambda: worker.requests_in_flight() == 1)

    worker.wait_until(lambda: worker.requests_in_flight() == 0, SOON_SECONDS)
    worker.wait_until(
        lambda: worker.generate({"seconds": 0}).status_code == 200
    )  # a moment after the model has seen it


def test_a_drain_finishes_the_job_in_hand(serve: Callable[[str, str], Any]) -> None:
    worker = serve("slow", "worker:Slow")
    with worker.asked({"seconds": 2}) as request:
        worker.wait_until(lambda: worker.requests_in_flight() == 1)
        assert worker.stop() == 0
        assert json.load(request.getresponse()) == {"slept_seconds": 2}
