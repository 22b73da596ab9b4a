"""The protocol between a platform and a worker, driven from outside: any worker process that keeps it passes.

What the worker does with a job is in `program.py`, who takes part in `forms.py`.
"""

import signal
from pathlib import Path
from typing import Any

from contract.worker.forms import Form
from contract.worker.outside import DEPLOYMENT, Launcher, Platform
from sprocket.testing.fake_queue import FakeJob

ECHO = {"do": "echo", "text": "žluťoučký kůň", "deep": [{"n": 1.5, "none": None}]}


async def waiting(queue: Platform, until: Path) -> FakeJob:
    """A job in hand, that waits for a file, and has said so."""
    job = await queue.submit({"do": "wait", "until": str(until)})
    await queue.until_holds(lambda: job.info.get("step") == "waiting")
    return job


async def works(queue: Platform, payload: dict[str, Any] = ECHO) -> None:
    """The worker takes a job and delivers its result."""
    job = await queue.ended(await queue.submit(payload))
    assert (job.status, job.outputs) == ("done", payload)


async def test_a_worker_is_healthy_and_claims_when_setup_is_over(
    queue: Platform, launch: Launcher, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = await queue.submit(ECHO)
    worker = await launch(SETUP_GATE=str(gate))
    await worker.until_health(503)
    assert (job.status, queue.polls) == ("pending", [])
    make(gate)
    await worker.until_health(200)
    assert (await queue.ended(job)).outputs == ECHO


async def test_a_claim_names_the_queue_and_how_long_it_holds(queue: Platform, launch: Launcher) -> None:
    await launch(MACHINESHOP_REPLICA_ID="replica-1")
    await works(queue)
    poll = queue.polls[0]
    assert (poll["model"], poll["hostname"]) == (DEPLOYMENT, "replica-1")
    assert poll["timeout"].endswith("s")
    assert int(poll["claim_timeout"]) >= 30


async def test_results_carry_the_attempts_token(queue: Platform, launch: Launcher) -> None:
    await launch()
    for number in range(5):
        payload = {"do": "echo", "number": number}
        job = await queue.ended(await queue.submit(payload))
        assert (job.status, job.outputs, job.attempt) == ("done", payload, 1)
        assert [update.body["attempt_token"] for update in queue.said_of(job, "done")] == [job.token]


async def test_polls_without_a_job_are_answered_null_and_asked_again(queue: Platform, launch: Launcher) -> None:
    queue.poll_seconds = 0.05
    await launch()
    await queue.until_holds(lambda: len(queue.polls) >= 4)
    await works(queue)


async def test_a_busy_worker_is_healthy_and_renews_its_claim(queue: Platform, launch: Launcher, tmp_path: Path) -> None:
    worker = await launch.ready()
    job = await waiting(queue, tmp_path / "go")
    heard = len(queue.said_of(job, "running"))
    await queue.until_holds(lambda: len(queue.said_of(job, "running")) >= heard + 3)
    assert await worker.health() == 200
    beats = queue.said_of(job, "running")
    assert all(beat.body["payload"] == {} and beat.answer == 200 for beat in beats)
    other = await queue.submit(ECHO)
    make(tmp_path / "go")
    assert (await queue.ended(job)).outputs == {"waited": True}
    assert (await queue.ended(other)).status == "done"


async def test_a_failure_is_reported_with_its_text_and_the_worker_goes_on(queue: Platform, launch: Launcher) -> None:
    await launch()
    job = await queue.ended(await queue.submit({"do": "raise"}))
    assert (job.status, job.outputs) == ("failed", None)
    assert "no such page" in job.info["error"]
    await works(queue)


async def test_a_cancel_is_taken_up_and_reported(queue: Platform, launch: Launcher, tmp_path: Path) -> None:
    await launch()
    job = await waiting(queue, tmp_path / "never")
    await queue.cancel(job)
    assert (await queue.ended(job)).status == "canceled"
    assert job.outputs is None
    await works(queue)


async def test_a_job_that_was_given_to_another_worker_is_dropped(
    queue: Platform, launch: Launcher, tmp_path: Path
) -> None:
    await launch()
    job = await waiting(queue, tmp_path / "never")
    await queue.give_to_another(job)
    await works(queue)  # it has stopped by itself: nobody has cancelled the job, or made its file
    assert (job.status, job.outputs) == ("running", None)
    stale = [update.body["status"] for update in queue.updates_of(job) if update.answer == 409]
    assert stale == ["running"]


async def test_a_result_that_finds_no_taker_is_offered_again(queue: Platform, launch: Launcher) -> None:
    await launch()
    queue.statuses = [500, 503, 429]
    job = await queue.ended(await queue.submit(ECHO))
    assert job.outputs == ECHO
    assert [update.answer for update in queue.said_of(job, "done")] == [500, 503, 429, 200]


async def test_a_stale_result_is_not_offered_again(queue: Platform, launch: Launcher) -> None:
    await launch()
    queue.statuses = [409]
    job = await queue.submit(ECHO)
    await queue.until_holds(lambda: queue.said_of(job, "done"))
    await works(queue)
    assert [update.answer for update in queue.said_of(job, "done")] == [409]


async def test_a_platform_may_be_away_at_the_start_and_when_the_result_is_there(
    queue: Platform, launch: Launcher, tmp_path: Path
) -> None:
    await queue.stop()
    worker = await launch.ready()
    await queue.start()
    job = await waiting(queue, tmp_path / "go")
    await queue.stop()
    make(tmp_path / "go")
    await queue.until_a_result_is_lost()
    assert await worker.health() == 200
    await queue.start()
    assert (await queue.ended(job)).outputs == {"waited": True}
    await works(queue)


async def test_an_idle_worker_ends_at_once_when_asked_to(queue: Platform, launch: Launcher) -> None:
    worker = await launch.ready()
    await queue.until_holds(lambda: queue.polls)
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    job = await queue.submit(ECHO)
    assert job.status == "pending"


async def test_a_draining_worker_finishes_its_job_and_takes_no_other(
    queue: Platform, launch: Launcher, tmp_path: Path
) -> None:
    worker = await launch.ready()
    job = await waiting(queue, tmp_path / "go")
    worker.send(signal.SIGTERM)
    await worker.until_health(503, 0)
    other = await queue.submit(ECHO)
    make(tmp_path / "go")
    assert await worker.exit_code() == 0
    assert (job.status, job.outputs) == ("done", {"waited": True})
    assert (other.status, other.attempt) == ("pending", 0)


async def test_what_outlasts_the_grace_period_is_handed_back(queue: Platform, launch: Launcher, tmp_path: Path) -> None:
    worker = await launch.ready(TERMINATION_GRACE_PERIOD_SECONDS="1")
    job = await waiting(queue, tmp_path / "never")
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert (job.status, job.outputs) == ("pending", None)
    await done_by_another(queue, launch, job, tmp_path / "never")


async def test_an_end_during_setup_is_taken(queue: Platform, launch: Launcher, tmp_path: Path) -> None:
    worker = await launch(SETUP_GATE=str(tmp_path / "never"))
    await worker.until_health(503)
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert queue.polls == []


async def test_a_crash_ends_the_worker_and_costs_an_attempt(form: Form, queue: Platform, launch: Launcher) -> None:
    worker = await launch.ready()
    job = await queue.submit({"do": "crash"})
    assert await worker.exit_code() != 0
    assert job.outputs is None
    if form.crash_fails_the_job:
        assert job.status == "failed"
        assert "SIGSEGV" in job.info["error"]
    else:
        assert (job.status, queue.said_of(job, "done") + queue.said_of(job, "failed")) == ("running", [])
    await launch()
    await works(queue)


async def test_a_killed_worker_leaves_its_job_to_the_next(queue: Platform, launch: Launcher, tmp_path: Path) -> None:
    worker = await launch.ready()
    job = await waiting(queue, tmp_path / "go")
    worker.send(signal.SIGKILL)
    await worker.exit_code()
    await queue.lose(job)
    await done_by_another(queue, launch, job, tmp_path / "go")


async def done_by_another(queue: Platform, launch: Launcher, job: FakeJob, until: Path) -> None:
    """A second worker finishes the job that the first one could not."""
    make(until)
    await launch()
    await queue.ended(job)
    assert (job.status, job.outputs, job.attempt) == ("done", {"waited": True}, 2)


def make(path: Path) -> None:
    """Let jobs go on that wait for this file."""
    path.touch()
