"""`jig submit --file`: every line one job, whatever happens on the way."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_platform import READY, FakePlatform
from fake_queue import FakeQueue, done
from jig_process import Jig, finish, wait_until


@pytest.fixture
def queue(platform: FakePlatform, project: Path) -> FakeQueue:
    """The queue of a deployment that is ready."""
    platform.rollout = [READY]
    platform.deploy("hello")
    return platform.queue


def write_jobs(jig: Jig, number: int) -> None:
    (jig.folder / "jobs.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(number)))


def some_fail(job: dict[str, Any]) -> dict[str, Any]:
    number = job["inputs"]["n"]
    if number % 100 == 7:
        return {"status": "failed", "error": f"ValueError: no page {number}"}
    return done(job)


def test_all_jobs_are_submitted_in_portions_and_end(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    write_jobs(jig, 2500)
    queue.looks_until_ended = 2
    finished = jig("submit", "--file", "jobs.jsonl", "--output", "results.jsonl", "--priority", "3")
    assert finished.code == 0, finished.err
    assert re.fullmatch(r"2,500 jobs in \S+ s, \S+ jobs/s: 2,500 done.\n", finished.out)
    assert re.fullmatch(r"Submitting 2,500 jobs of jobs.jsonl to hello, run \w{10}\n", finished.err)
    assert queue.sizes == [1000, 1000, 500]
    results = [json.loads(line) for line in (jig.folder / "results.jsonl").read_text().splitlines()]
    assert [(each["line"], each["outputs"]["n"]) for each in results] == [(n + 1, n) for n in range(2500)]
    assert {job["asked"]["priority"] for job in queue.jobs.values()} == {3}
    assert len({job["asked"]["idempotency_key"] for job in queue.jobs.values()}) == 2500
    finished = jig("submit", "--file", "jobs.jsonl", "--output", "results.jsonl")
    assert finished.code == 2
    assert "results.jsonl exists already." in finished.err
    assert len(queue.jobs) == 2500


def test_jobs_without_a_result_are_named(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 1000)
    queue.outcome = some_fail
    finished = jig("submit", "--file", "jobs.jsonl", "--output", "results.jsonl")
    assert finished.code == 1
    assert ": 990 done, 10 failed." in finished.out
    assert "  jobs.jsonl:8  job-0008  ValueError: no page 7\n" in finished.out
    assert "jig: 10 of 1,000 jobs ended without a result." in finished.err
    results = [json.loads(line) for line in (jig.folder / "results.jsonl").read_text().splitlines()]
    assert results[7] == {
        "line": 8,
        "request_id": "job-0008",
        "status": "failed",
        "outputs": None,
        "error": "ValueError: no page 7",
    }
    finished = jig("submit", "--file", "jobs.jsonl", "--json")
    assert (finished.code, finished.err) == (1, "")
    run = finished.json["error"]["run"]
    assert [run[key] for key in ("jobs", "submitted", "done", "failed", "gone")] == [1000, 1000, 990, 10, 0]
    assert run["errors"][0] == {"line": 8, "request_id": "job-1008", "error": "ValueError: no page 7"}


def test_a_bad_line_means_that_nothing_is_sent(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    (jig.folder / "jobs.jsonl").write_text('{"n": 1}\n\n{"payload": {}, "prio": 1}\n[]\n')
    finished = jig("submit", "--file", "jobs.jsonl")
    assert (finished.code, finished.out) == (2, "")
    assert "jig: 2 lines of jobs.jsonl are no jobs:\njobs.jsonl:3:17: " in finished.err
    assert "jobs.jsonl:4:1: " in finished.err
    assert "Nothing was submitted." in finished.err
    assert not platform.requests


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "x"], "--file, or one job"),
        (["--idempotency-key", "x"], "each job has a key of its own"),
        (["--output", "x", "--no-watch"], "--output waits for the results"),
        (["--output", "-", "--json"], "--json and --output -"),
        (["--run-id", ""], "--run-id is empty"),
        (["--output", "missing/results.jsonl"], "Cannot write missing/results.jsonl: No such file or directory."),
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_refused(
    jig: Jig, queue: FakeQueue, platform: FakePlatform, words: list[str], said: str
) -> None:
    write_jobs(jig, 1)
    finished = jig("submit", "--file", "jobs.jsonl", *words)
    assert finished.code == 2
    assert said in finished.out + finished.err
    assert not platform.requests


def test_options_of_a_file_need_one(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    assert "go with --file" in jig("submit", "--prompt", "x", "--output", "results.jsonl").err
    assert "cannot read that file: No such file" in jig("submit", "--file", "missing.jsonl").err
    assert not platform.requests


def test_an_answer_that_is_lost_doubles_no_job(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 1500)
    queue.lost_answers = 2
    finished = jig("submit", "--file", "jobs.jsonl")
    assert finished.code == 0, finished.err
    assert "1,500 done" in finished.out
    assert queue.sizes == [1000, 1000, 1000, 500]
    assert len(queue.jobs) == 1500


def test_a_platform_in_trouble_is_waited_for(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    write_jobs(jig, 10)
    platform.failures = [("/submit", 503), ("/results", 500), ("/results", 503)]
    finished = jig("submit", "--file", "jobs.jsonl")
    assert finished.code == 0, finished.err
    assert len(queue.jobs) == 10


def test_a_full_queue_is_waited_for_with_smaller_portions(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 30)
    queue.room, queue.room_per_refusal = 10, 5
    finished = jig("submit", "--file", "jobs.jsonl")
    assert finished.code == 0, finished.err
    assert "30 done" in finished.out
    assert len(queue.jobs) == 30
    assert queue.sizes[:2] == [30, 3]


def test_a_run_goes_on_where_it_was(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 20)
    ids = jig("submit", "--file", "jobs.jsonl", "--run-id", "mine", "--no-watch").out.split()
    assert len(ids) == 20
    with (jig.folder / "jobs.jsonl").open("a") as file:
        file.write('{"n": 20}\n')
    finished = jig("submit", "--file", "jobs.jsonl", "--run-id", "mine", "--no-watch")
    assert finished.out.split()[:20] == ids
    assert "21 jobs submitted, 20 of them before." in finished.err
    assert len(queue.jobs) == 21
    assert "21 jobs had been submitted before." in jig("submit", "--file", "jobs.jsonl", "--run-id", "mine").err
    document = jig("submit", "--file", "jobs.jsonl", "--no-watch", "--json").json  # a new run
    assert len(document["request_ids"]) == document["submitted"] == 21
    assert len(queue.jobs) == 42


def test_a_line_that_the_platform_refuses_is_named(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 1200)
    with (jig.folder / "jobs.jsonl").open("a") as file:
        file.write('{"refuse": true}\n')
    queue.looks_until_ended = 1_000_000
    finished = jig("submit", "--file", "jobs.jsonl")
    assert finished.code == 1
    assert "jobs.jsonl:1201: The payload is refused." in finished.err
    assert "1,000 of 1,201 jobs submitted; 0 done, 1,000 not ended, and they go on." in finished.err
    assert "the same command with --run-id" in finished.err
    kept = re.search(r"xargs jig jobs cancel --name hello < (\S+)", finished.err)
    assert kept is not None
    ids = Path(kept[1])
    assert ids.read_text().split() == list(queue.jobs)
    ids.unlink()


def test_jobs_that_the_platform_no_longer_has_have_no_result(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 5)

    def forget(job: dict[str, Any]) -> dict[str, Any]:
        if job["inputs"]["n"] == 3:
            del queue.jobs["job-0005"]
        return done(job)

    queue.outcome = forget
    finished = jig("submit", "--file", "jobs.jsonl", "--output", "-")
    assert finished.code == 1
    assert [json.loads(line)["status"] for line in finished.out.splitlines()] == [*["done"] * 4, "gone"]
    assert "4 done, 1 no longer kept." in finished.err


def test_jobs_come_from_standard_input_too(jig: Jig, queue: FakeQueue) -> None:
    finished = jig("submit", "--file", "-", stdin='{"n": 1}\n{"n": 2}\n')
    assert finished.code == 0, finished.err
    assert [job["inputs"] for job in queue.jobs.values()] == [{"n": 1}, {"n": 2}]
    assert "standard input:2:1: " in jig("submit", "--file", "-", stdin='{"n": 1}\n3\n').err


def test_files_of_the_lines_are_uploaded_each_once(jig: Jig, queue: FakeQueue, platform: FakePlatform) -> None:
    (jig.folder / "page.png").write_bytes(b"pixels")
    line = '{"image": "@page.png"}\n'
    (jig.folder / "jobs.jsonl").write_text(line * 3)
    assert jig("submit", "--file", "jobs.jsonl", "--run-id", "mine").code == 0
    assert len(platform.sent("PUT", "/signed/")) == 1
    urls = {job["inputs"]["image"] for job in queue.jobs.values()}
    assert jig("submit", "--file", "jobs.jsonl", "--run-id", "mine").code == 0
    assert urls == {job["inputs"]["image"] for job in queue.jobs.values()}  # the same payload again
    assert len(queue.jobs) == 3


def interrupt(process: subprocess.Popen[str], queue: FakeQueue, jobs: int) -> Any:
    wait_until(process, lambda: len(queue.seen) == jobs, "all jobs were looked at")
    process.send_signal(signal.SIGINT)
    return finish(process)


def test_ctrl_c_says_how_far_it_has_come_and_how_to_go_on(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 50)
    queue.looks_until_ended = 1_000_000
    with jig.start("submit", "--file", "jobs.jsonl", "--output", "results.jsonl", "--run-id", "mine") as process:
        finished = interrupt(process, queue, 50)
    assert (finished.code, finished.out) == (130, "")
    assert "Interrupted: 50 of 50 jobs submitted; 0 done, 50 not ended, and they go on." in finished.err
    assert "To go on: the same command again. No job is submitted twice." in finished.err
    ids = Path(re.search(r"< (\S+)", finished.err)[1])  # type: ignore[index]
    assert jig("jobs", "cancel", "--name", "hello", *ids.read_text().split()).code == 0
    ids.unlink()
    assert not (jig.folder / "results.jsonl").exists()
    assert not list(jig.folder.glob(".jig-*"))
    queue.looks_until_ended = 1
    assert jig("submit", "--file", "jobs.jsonl", "--output", "results.jsonl", "--run-id", "mine").code == 0
    assert len((jig.folder / "results.jsonl").read_text().splitlines()) == 50
    assert len(queue.jobs) == 50


def test_a_run_that_does_not_get_on_says_what_the_first_job_does(jig: Jig, queue: FakeQueue) -> None:
    write_jobs(jig, 3)
    queue.outcome = lambda job: {"status": "running", "info": {"page": 7}}
    with jig.start("submit", "--file", "jobs.jsonl") as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "job job-0001 is running: page 7" in line)
        process.send_signal(signal.SIGINT)
        finish(process)
    assert "0 of 3: 0 done: " in said


def test_an_older_platform_is_said_to_be_one(jig: Jig, platform: FakePlatform, queue: FakeQueue) -> None:
    write_jobs(jig, 2)
    platform.failures = [("/submit", 400)]
    finished = jig("submit", "--file", "jobs.jsonl")
    assert finished.code == 1
    assert "The platform is unwell." in finished.err
    assert "takes one job at a time" in finished.err
