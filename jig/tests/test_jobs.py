"""`jig jobs`, `queue-settings` and what the queue's other commands say, against a platform over a socket."""

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_platform import READY, FakePlatform
from fake_queue import BREAK, HOLD, OVER, FakeQueue
from jig_process import Jig, finish, wait_until

from jig.errors import UsageError
from jig.job import change_line, listing, page, watch_line
from jig.queue_settings import changes
from jig.units import duration_seconds, duration_text, elapsed, roughly
from jig.waiting import clause, estimate_text

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = 3600


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def local(seconds: float) -> str:
    """The same in this machine's zone, as people read it."""
    return f"{(NOW + timedelta(seconds=seconds)).astimezone():%Y-%m-%d %H:%M:%S}"


def estimate(start: float, earliest: float, latest: float) -> dict[str, Any]:
    return {"start_at": at(start), "earliest_at": at(earliest), "latest_at": at(latest), "from_jobs": 120}


def in_line(**fields: Any) -> dict[str, Any]:
    """What the platform tells of a job that waits."""
    busy = {
        "position": 3,
        "reason": "all_busy",
        "message": "Both replicas are busy.",
        "ready_replicas": 2,
        "running": 2,
    }
    return {**busy, "estimate": None, **fields}


@pytest.fixture
def queue(platform: FakePlatform, project: Path) -> FakeQueue:
    """The queue of a deployment that is ready."""
    platform.rollout = [READY]
    platform.deploy("hello")
    return platform.queue


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((240, 120, 540), "starts in about 4 min (2 min to 9 min)"),
        ((40, 0, 70), "starts in about 40 s (now to 1 min)"),
        ((0, 0, 0), "starts any moment"),
        ((-9, -20, -1), "starts any moment"),
        ((7800, 7800, 7800), "starts in about 2 h 10 min"),
    ],
)
def test_an_estimate_is_told_with_its_interval(bounds: tuple[float, float, float], expected: str) -> None:
    assert estimate_text({"estimate": estimate(*bounds)}, NOW) == expected


def test_an_estimate_that_is_not_there_is_not_told() -> None:
    assert estimate_text({}, NOW) == estimate_text({"estimate": None}, NOW) == ""
    told = estimate_text({"estimate": estimate(240, 120, 540)}, NOW, with_source=True)
    assert told == "in about 4 min (2 min to 9 min), going by the last 120 jobs"


def test_a_waiting_job_is_one_line() -> None:
    job = {"status": "pending", "queue": in_line(estimate=estimate(240, 120, 540))}
    line = "pending, position 3: both replicas are busy; starts in about 4 min (2 min to 9 min)"
    assert watch_line(job, "both replicas are busy", NOW) == line
    deep = {"status": "pending", "queue": in_line(position=None), "retries": 1}
    assert watch_line(deep, "", NOW) == "pending, behind more than 10,000 others, retry 1"
    assert watch_line({"status": "pending"}, "", NOW) == "pending"
    assert watch_line({"status": "running", "info": {"page": 1}}, "", NOW) == "running: page 1"


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("No replica is ready.", "no replica is ready"),
        ("GPU jobs wait.", "GPU jobs wait"),
        ("", ""),
        ("2 wait", "2 wait"),
    ],
)
def test_a_sentence_becomes_a_clause(sentence: str, expected: str) -> None:
    assert clause(sentence) == expected


def test_a_change_is_one_line_whatever_is_in_it() -> None:
    job = {"request_id": "j", "status": "failed", "info": {"stage": "a\nb"}, "error": "x\x1b[2J\ny"}
    assert change_line(job) == "j  failed: stage a b: x [2J y"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5m", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration_seconds(text, "--keep") == seconds


@pytest.mark.parametrize("text", ["", "m", "10 m", "1w", "-5m", "5m3", "٣m", "1e3", "inf"])
def test_what_is_no_duration_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"--keep .*no duration"):
        duration_seconds(text, "--keep")


def test_a_duration_that_no_clock_can_count_is_an_error() -> None:
    with pytest.raises(UsageError, match="more than 36500d"):
        duration_seconds("9" * 400 + "d", "--timeout")


def test_durations_in_words() -> None:
    assert [duration_text(each) for each in (0, 90, 604_800, 129_600)] == ["0s", "1m30s", "7d", "1d12h"]
    assert [roughly(each) for each in (0.2, 59, 90, 2 * HOUR, 8000, 50 * HOUR)] == [
        "1 s",
        "59 s",
        "2 min",
        "2 h",
        "2 h 13 min",
        "2 days",
    ]
    assert elapsed(3 * HOUR) == "3 h"


def test_times_of_a_job_are_told_from_its_timestamps() -> None:
    job = {"request_id": "j", "status": "running", "attempt": 2, "retries": 1, "fair_key": "acme", "priority": 5}
    job |= {"created_at": at(-90), "claimed_at": at(-60), "done_at": None}
    assert listing([job], NOW).splitlines()[1].split() == ["j", "running", "5", "acme", "2", "30s", "1m", "1m"]
    again = job | {"status": "pending", "claimed_at": None}
    assert listing([again], NOW).splitlines()[1].split()[5:] == ["1m", "-", "1m"]
    text = page(job | {"deadline_at": at(120), "info": {"page": 7}, "resubmit_of": "old"}, NOW)
    assert "Status    running, retry 1: page 7" in text
    assert "Attempts  2 (1 retry)" in text
    assert ", in 2 min\n" in text
    assert "Waited    30.0 s" in text
    assert "Ran       1 min 00 s" in text
    assert "Repeats   old" in text
    assert "Memory" not in text


def test_a_page_tells_what_the_worker_measured() -> None:
    measures = {"download_seconds": 1.25, "predict_seconds": 90, "ram_peak_bytes": 3 * 2**30, "vram_peak_bytes": 2**20}
    job = {"request_id": "j", "status": "done", "info": {"sprocket": measures}, "created_at": at(-90)}
    text = page(job, NOW)
    assert "Of that   download 1.2 s, predict 1 min 30 s" in text
    assert "Memory    3.0 GiB RAM, 1.0 MiB VRAM at the peak" in text
    assert "Status    done\n" in text
    assert "Memory" not in page({**job, "info": {"sprocket": "the submitter's own"}}, NOW)


@pytest.mark.parametrize(
    ("webhook", "told"),
    [
        (None, None),
        ({"state": "pending", "tries": 0, "next_try_at": at(0)}, "being told"),
        (
            {"state": "retrying", "tries": 2, "next_try_at": at(10), "error": "The receiver answered 500: not\x1b yet"},
            f"not taken in 2 tries, again {local(10)}, in 10 s: The receiver answered 500: not  yet",
        ),
        ({"state": "delivered", "tries": 1, "delivered_at": at(-60)}, f"taken in 1 try, {local(-60)}, 1 min ago"),
        ({"state": "given_up", "tries": 34, "error": "No answer."}, "given up after 34 tries: No answer."),
    ],
    ids=["not ended", "pending", "retrying", "delivered", "given up"],
)
def test_a_page_tells_what_became_of_the_webhook(webhook: dict[str, Any] | None, told: str | None) -> None:
    job = {"request_id": "j", "status": "done", "webhook_url": "https://example.com/hook", "webhook": webhook}
    rows = dict(line.split(maxsplit=1) for line in page(job, NOW).splitlines())
    assert rows["Webhook"] == "https://example.com/hook"
    assert rows.get("Told") == told


def test_jobs_are_listed_newest_first(jig: Jig, queue: FakeQueue) -> None:
    assert jig("jobs", "list").out == "No jobs. Submit one with `jig submit`.\n"
    for number in range(3):
        queue.put("done" if number else "failed", fair_key="acme" if number == 1 else None)
    finished = jig("jobs", "list")
    assert [line.split()[:2] for line in finished.out.splitlines()] == [
        ["ID", "STATUS"],
        ["job-0003", "done"],
        ["job-0002", "done"],
        ["job-0001", "failed"],
    ]
    assert finished.err == ""
    assert [job["request_id"] for job in jig("jobs", "list", "hello", "--status", "failed", "--json").json["data"]] == [
        "job-0001"
    ]
    assert jig("jobs", "list", "--fair-key", "acme").out.splitlines()[1].split()[:4] == [
        "job-0002",
        "done",
        "0",
        "acme",
    ]
    assert jig("jobs", "list", "--status", "canceled").out == "No such jobs.\n"


def test_a_list_goes_on_page_by_page_as_far_as_wanted(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    for _ in range(2300):
        queue.put("done")
    finished = jig("jobs", "list")
    assert len(finished.out.splitlines()) == 51
    assert "There are more: see them with --limit 500 or --all." in finished.err
    assert len(jig("jobs", "list", "--limit", "1200", "--json").json["data"]) == 1200
    everything = jig("jobs", "list", "--all", "--json").json
    assert len({job["request_id"] for job in everything["data"]}) == 2300
    assert everything["next_cursor"] is None
    asked = platform.sent("GET", "/v1/queue/jobs")
    assert [request.query["limit"] for request in asked] == ["50", "1000", "200", "1000", "1000", "1000"]
    assert ["include" in request.query for request in asked] == [True, *[False] * 5]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs", "list", "--status", "failed,cancelled"], "'cancelled' is no state of a job"),
        (["jobs", "list", "--status", ","], "names no state"),
        (["jobs", "list", "--all", "--limit", "3"], "either --all or --limit"),
        (["jobs", "cancel"], "Which jobs?"),
        (["jobs", "cancel", "x", "--grace", "2h"], "--grace must be at most 1h"),
        (["jobs", "retry"], "Which jobs?"),
        (["jobs", "retry", "x", "--all-failed"], "Which jobs?"),
        (["queue-settings", "--weight", "acme"], "must be KEY=VALUE"),
        (["queue-settings", "--weight", "acme=-1"], "a number above 0"),
        (["queue-settings", "--weight", "acme=nan"], "a number above 0"),
        (["queue-settings", "--cap", "acme=1.5"], "a whole number above 0"),
        (["queue-settings", "--keep", "week"], "that is no duration"),
        (["submit", "--prompt", "x", "--deadline", "40d"], "at most 30d"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_changes_nothing(jig: Jig, platform: FakePlatform, words: list[str], said: str) -> None:
    finished = jig(*words, *([] if words[0] == "submit" else ["--name", "hello"]))
    assert (finished.code, finished.out) == (2, "")
    assert said in finished.err
    assert not platform.requests


def test_a_job_is_shown_with_all_that_is_known(jig: Jig, queue: FakeQueue) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=4, seconds=20)).isoformat()
    told = in_line(estimate={"start_at": soon, "earliest_at": soon, "latest_at": soon, "from_jobs": 7})
    waiting = queue.put("pending", queue=told, fair_key="acme", inputs={"n": 1})
    queue.looks_until_ended = 100
    text = jig("jobs", "show", waiting).out
    for line in (
        "Status      pending, position 3",
        "Waits       Both replicas are busy.",
        "Starts      in about 4 min, going by the last 7 jobs",
        "Fair key    acme",
        'Inputs      {"n": 1}',
    ):
        assert line in text.splitlines()
    assert "Both replicas are busy." in jig("job-status", waiting).out
    failed = queue.put("failed", error="ValueError: no", info={"error": "ValueError: no", "traceback": "File x\n  y"})
    text = jig("jobs", "show", failed, "hello").out
    assert "Error       ValueError: no" in text
    assert "Trace       File x\n              y\n" in text
    assert jig("jobs", "show", failed, "--json").json["status"] == "failed"
    finished = jig("jobs", "show", "nobody")
    assert (finished.code, finished.out) == (1, "")
    assert "There is no such job." in finished.err


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "list"],
        ["jobs", "retry", "--all-failed"],
        ["jobs", "watch"],
        ["jobs", "watch", "job-1"],
        ["queue-settings"],
    ],
    ids=" ".join,
)
def test_an_older_platform_is_said_to_be_one(
    jig: Jig, queue: FakeQueue, platform: FakePlatform, words: list[str]
) -> None:
    platform.is_old = True
    finished = jig(*words)
    assert (finished.code, finished.out) == (1, "")
    assert "cannot do this: it has no " in finished.err
    assert "It is older than this jig. Update the platform." in finished.err


def test_jobs_are_canceled_one_by_one(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    ids = [queue.put(status) for status in ("pending", "running", "done", "canceled")]
    finished = jig("jobs", "cancel", *ids, "nobody", "--grace", "5")
    assert finished.code == 1
    assert finished.out.splitlines() == [
        f"{ids[0]}  canceled",
        f"{ids[1]}  running: its worker has been asked to stop",
        f"{ids[2]}  The job is done.",
        f"{ids[3]}  canceled",
        "nobody  There is no such job.",
    ]
    assert "2 of 5 jobs could not be canceled." in finished.err
    assert platform.sent("POST", "/v1/queue/cancel")[0].json == {
        "model": "hello",
        "request_id": ids[0],
        "grace_seconds": 5,
    }
    assert jig("jobs", "cancel", ids[0], ids[1]).code == 0
    assert "grace_seconds" not in platform.sent("POST", "/v1/queue/cancel")[-1].json
    document = jig("jobs", "cancel", ids[0], ids[2], "--json").json
    assert document["error"]["type"] == "incomplete_error"
    assert [each["status"] for each in document["error"]["data"]] == ["canceled", "done"]


def test_ended_jobs_are_submitted_again(jig: Jig, queue: FakeQueue) -> None:
    ids = [queue.put("failed"), queue.put("done"), queue.put("running")]
    assert jig("jobs", "retry", ids[0], ids[1], ids[0]).out.splitlines() == [
        "JOB       SUBMITTED AGAIN AS",
        "job-0001  job-0004",
        "job-0002  job-0005",
    ]
    finished = jig("jobs", "retry", ids[2], "--json")
    assert finished.code == 1
    assert "has not ended" in finished.json["error"]["message"]


def test_all_failed_jobs_are_retried_once(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    for number in range(1200):
        queue.put("failed" if number % 2 else "done")
    for _ in range(1100):
        queue.put("failed")
    data = jig("jobs", "retry", "--all-failed", "--json").json["data"]
    assert len(data) == 1700
    assert data[0]["resubmit_of"] == "job-0002"  # the oldest first
    assert [len(sent.json["request_ids"]) for sent in platform.sent("POST", "/v1/queue/resubmit")] == [1000, 700]
    assert jig("jobs", "retry", "--all-failed").out == "No failed jobs to retry.\n"
    queue.jobs["job-2301"]["status"] = "failed"  # one of the new ones, which may be retried in its turn
    assert [each["resubmit_of"] for each in jig("jobs", "retry", "--all-failed", "--json").json["data"]] == ["job-2301"]


def test_a_watched_job_is_followed_by_events_over_broken_connections(
    jig: Jig, queue: FakeQueue, platform: FakePlatform
) -> None:
    request_id = queue.put("pending", queue=in_line())
    queue.looks_until_ended = 1000
    job = {key: value for key, value in queue.jobs[request_id].items() if key != "queue"}
    running = {**job, "status": "running", "info": {"page": 1}}
    queue.connections = [
        [("1", job), ("2", running), BREAK],
        [("3", {**running, "info": {"page": 2}}), ("4", {**job, "status": "done", "outputs": {"text": "hi"}})],
    ]
    finished = jig("jobs", "watch", request_id)
    assert (finished.code, finished.json) == (0, {"text": "hi"})
    assert "pending, position 3: both replicas are busy" in finished.err
    assert "running: page 1" in finished.err
    assert finished.err.rstrip().endswith("done")
    asked = platform.sent("GET", "/v1/queue/events")
    assert [request.headers.get("Last-Event-ID") for request in asked] == [None, "2"]
    assert {request.query["request_id"] for request in asked} == {request_id}


def test_a_watched_job_that_fails_is_an_error(jig: Jig, queue: FakeQueue) -> None:
    request_id = queue.put("failed", error="ValueError: no")
    queue.connections = [[("1", queue.jobs[request_id])]] * 2
    finished = jig("jobs", "watch", request_id)
    assert (finished.code, finished.out) == (1, "")
    assert "The job failed: ValueError: no" in finished.err
    queue.connections = [[("1", queue.jobs[request_id])]]
    assert jig("jobs", "watch", request_id, "--json").json["error"]["job"]["request_id"] == request_id


def test_ctrl_c_leaves_a_watched_job_alone(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    request_id = queue.put("running")
    queue.connections = [[("1", queue.jobs[request_id]), HOLD]]
    with jig.start("jobs", "watch", request_id) as process:
        assert process.stderr is not None
        assert "running" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    queue.may_end.set()
    assert finished.code == 130
    assert f"Job {request_id} goes on." in finished.err
    assert f"jig job-cancel {request_id}" in finished.err


@pytest.mark.parametrize("json_words", [[], ["--json"]], ids=["text", "json"])
def test_a_queue_is_watched_until_ctrl_c(jig: Jig, queue: FakeQueue, json_words: list[str]) -> None:
    job = queue.jobs[queue.put("pending")]
    queue.connections = [[("1", job), ("2", {**job, "status": "failed", "error": "no\npage"}), HOLD]]
    with jig.start("jobs", "watch", *json_words) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    queue.may_end.set()
    assert finished.code == 130
    if json_words:
        assert [json.loads(line)["status"] for line in lines] == ["pending", "failed"]
        assert finished.err == ""
    else:
        assert [line.split("  ", 1)[1] for line in lines] == ["job-0001  pending\n", "job-0001  failed: no page\n"]


def test_what_can_no_longer_be_watched_is_said_so(jig: Jig, queue: FakeQueue) -> None:
    running = queue.jobs[queue.put("running")]
    queue.connections = [[("1", running), OVER], [("1", running), OVER]]
    finished = jig("jobs", "watch")
    assert finished.code == 0
    assert "The deployment hello is gone." in finished.err
    finished = jig("jobs", "watch", "job-0001")
    assert finished.code == 1
    assert "The platform no longer has this job." in finished.err


def test_settings_are_shown_and_changed(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    text = jig("queue-settings").out
    assert "Max pending          1,000,000 jobs" in text
    assert "Keep                 7d" in text
    assert text.splitlines()[-1].split() == ["acme", "3", "-"]
    assert not platform.sent("PATCH", "/v1/queue/settings")
    words = [
        "--cap",
        "acme=2",
        "--weight",
        "a=b=0.5",
        "--max-running-per-key",
        "4",
        "--keep",
        "36h",
        "--max-pending",
        "9",
    ]
    assert jig("queue_settings", *words).code == 0
    (sent,) = platform.sent("PATCH", "/v1/queue/settings")
    assert sent.query == {"model": "hello"}
    assert sent.json == {
        "max_pending": 9,
        "max_running_per_key": 4,
        "keep_seconds": 129_600,
        "keys": {"acme": {"weight": 3.0, "max_running": 2}, "a=b": {"weight": 0.5, "max_running": None}},
    }
    changed = jig(
        "queue-settings", "--cap", "acme=none", "--weight", "acme=none", "--max-running-per-key", "none", "--json"
    )
    assert changed.json["keys"] == {"a=b": {"weight": 0.5, "max_running": None}}
    assert changed.json["max_running_per_key"] is None


def test_a_fair_key_keeps_what_is_not_changed() -> None:
    keys = {"acme": {"weight": 3.0, "max_running": 2}}
    nothing: Any = {"max_pending": None, "max_running_per_key": None, "keep": None, "keep_count": None}
    assert changes(**nothing, weights=["acme=1"], caps=[]).body(keys) == {
        "keys": {"acme": {"weight": 1.0, "max_running": 2}}
    }
    assert not changes(**nothing, weights=[], caps=[]).is_any
    assert changes(**{**nothing, "keep_count": 0}, weights=[], caps=[]).body(keys) == {"keep_count": 0}


def test_a_submitted_job_says_what_its_options_say(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    words = ["--priority", "-1", "--fair-key", "acme", "--idempotency-key", "k", "--deadline", "1h30m"]
    assert jig("submit", "--prompt", "x", *words, "--webhook-url", "https://example.com/hook").code == 0
    assert platform.jobs["job-1"] == {
        "model": "hello",
        "payload": {"prompt": "x"},
        "priority": -1,
        "fair_key": "acme",
        "idempotency_key": "k",
        "deadline_seconds": 5400,
        "webhook_url": "https://example.com/hook",
    }


def test_a_submit_with_a_key_may_be_sent_again(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    platform.failures = [("/submit", 503), ("/submit", 502)]
    assert jig("submit", "--prompt", "x", "--idempotency-key", "k").out == "job-1\n"
    assert len(platform.sent("POST", "/v1/queue/submit")) == 3


def test_a_watched_submit_says_place_reason_and_estimate(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=4, seconds=20)).isoformat()
    told = in_line(estimate={"start_at": soon, "earliest_at": soon, "latest_at": soon, "from_jobs": 7})
    platform.job_states = [{"status": "pending", "queue": told}]
    with jig.start("submit", "--prompt", "x", "--watch") as process:
        wait_until(process, lambda: platform.looks.get("job", 0) > 1, "it is looked at twice")
        platform.job_states = [{"status": "done", "outputs": {}}]
        finished = finish(process)
    assert "pending, position 3: both replicas are busy; starts in about 4 min\n" in finished.err
    assert finished.err.count("pending") == 1  # once, not at each look
    assert not platform.sent("GET", "/v1/deployments/hello")
