"""jig's commands about jobs, with a real platform and real workers."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from platform_process import BIN, PlatformProcess, wait_for, write_worker

SECONDS_MAX = 60

# A worker that does as its job says; it holds still for as long as the file that the job names is not there, and says
# so by another one.
OBEDIENT = """
import os, time
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        if "gate" in args:
            open(args["gate"] + ".waited-for", "w").close()
        while "gate" in args and not os.path.exists(args["gate"]):
            if not args.get("stubborn") and sprocket.cancelled():
                return {}
            time.sleep(0.02)
        if args.get("fail"):
            raise ValueError(f"no page {args['n']}")
        return {"n": args.get("n")}
"""


@pytest.fixture(scope="module")
def obedient(platform: PlatformProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a deployment with one obedient worker."""
    folder = write_worker(tmp_path_factory.mktemp("obedient"), "obedient", OBEDIENT)
    platform.deploy(folder)
    yield folder
    platform.jig("destroy", "--yes", cwd=folder)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that jobs wait for; at the end of the test at the latest it is there."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def write_jobs(folder: Path, number: int) -> None:
    """`jobs.jsonl`, of which every tenth job fails."""
    lines = [json.dumps({"n": n} | ({"fail": True} if n % 10 == 3 else {})) for n in range(number)]
    (folder / "jobs.jsonl").write_text("\n".join(lines) + "\n")


@contextmanager
def started(platform: PlatformProcess, folder: Path, *words: object) -> Iterator["subprocess.Popen[str]"]:
    """jig, running beside the test; it ends with it at the latest."""
    with subprocess.Popen(
        [BIN / "jig", *map(str, words)],
        cwd=folder,
        env=platform.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        timer = threading.Timer(SECONDS_MAX, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def next_line(process: "subprocess.Popen[str]", words: str) -> str:
    """The next line on stderr that holds these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError(f"jig has ended without saying {words!r}")


def next_change(process: "subprocess.Popen[str]", words: str) -> str:
    """The next line on stdout that holds these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"jig has ended without printing {words!r}")


def test_a_file_of_jobs_is_worked_and_what_failed_is_retried(platform: PlatformProcess, obedient: Path) -> None:
    write_jobs(obedient, 100)
    finished = platform.jig("submit", "--file", "jobs.jsonl", "-o", "results.jsonl", cwd=obedient, check=False)
    assert finished.returncode == 1, finished.stderr
    assert re.match(r"100 jobs in \S+ s, \S+ jobs/s: 90 done, 10 failed\.\n", finished.stdout)
    results = [json.loads(line) for line in (obedient / "results.jsonl").read_text().splitlines()]
    assert [each["line"] for each in results] == list(range(1, 101))
    assert [each["outputs"] for each in results[:3]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert (results[3]["status"], results[3]["error"]) == ("failed", "ValueError: no page 3")
    assert f"  jobs.jsonl:4  {results[3]['request_id']}  ValueError: no page 3" in finished.stdout

    failed = platform.jig("jobs", "list", "--status", "failed", "--json", cwd=obedient)
    ids = [job["request_id"] for job in json.loads(failed.stdout)["data"]]
    assert set(ids) == {each["request_id"] for each in results if each["status"] == "failed"}
    shown = platform.jig("jobs", "show", ids[-1], cwd=obedient).stdout
    assert "ValueError: no page 3" in shown
    assert re.search(r"^Attempts +1$", shown, re.MULTILINE)

    retried = json.loads(platform.jig("jobs", "retry", "--all-failed", "--json", cwd=obedient).stdout)["data"]
    assert {each["resubmit_of"] for each in retried} == set(ids)
    for each in retried:
        assert platform.finished("obedient", each["request_id"])["resubmit_of"] == each["resubmit_of"]
    again = json.loads(platform.jig("jobs", "retry", "--all-failed", "--json", cwd=obedient).stdout)["data"]
    assert {each["resubmit_of"] for each in again} == {each["request_id"] for each in retried}


NAMED = (
    ("queue-status",),
    ("queue-clear", "--yes"),
    ("queue-settings",),
    ("jobs", "list"),
    ("jobs", "show", "no-job"),
    ("jobs", "watch"),
    ("jobs", "watch", "no-job"),
    ("jobs", "cancel", "no-job"),
    ("jobs", "retry", "no-job"),
    ("jobs", "retry", "--all-failed"),
    ("job-status", "no-job"),
    ("job-cancel", "no-job"),
    ("revisions",),
    ("revisions", "show"),
    ("revisions", "diff"),
    ("rollback",),
    ("submit", "--payload", "{}"),
)


@pytest.mark.parametrize("words", NAMED, ids="-".join)
def test_a_name_that_is_close_to_a_deployments_is_told_with_it(
    platform: PlatformProcess, obedient: Path, words: tuple[str, ...]
) -> None:
    finished = platform.jig(*words, "--name", "obedeint", cwd=obedient, check=False)
    assert finished.returncode == 1
    assert re.search("There is no deployment '?obedeint", finished.stderr)
    assert "Did you mean obedient?" in finished.stderr


def test_a_job_that_waits_says_why_and_is_watched_to_its_end(
    platform: PlatformProcess, obedient: Path, gate: Path
) -> None:
    blocking = platform.submit("obedient", {"gate": str(gate)})
    wait_for(lambda: platform.job("obedient", blocking)["status"] == "running", "the worker is busy")
    waiting = platform.submit("obedient", {"n": 1}, fair_key="acme", priority=-1)
    last = platform.submit("obedient", {"n": 2}, fair_key="acme", priority=-1)
    status = platform.jig("job-status", last, cwd=obedient).stdout
    shown = platform.jig("jobs", "show", last, cwd=obedient).stdout
    assert "pending, position 2" in status
    assert re.search(r"^Waits +\S", shown, re.MULTILINE)
    assert re.search(r"^Fair key +acme$", shown, re.MULTILINE)
    with (
        started(platform, obedient, "jobs", "watch", last) as process,
        started(platform, obedient, "jobs", "watch") as queue,
    ):
        assert ": " in next_line(process, "pending, position 2")
        next_line(queue, "until Ctrl-C")
        other = platform.submit("obedient", {"n": 3}, priority=-2)
        next_change(queue, f"{other}  pending")
        gate.touch()
        next_change(queue, f"{other}  done")
        queue.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert queue.wait() == 130
    assert (process.returncode, json.loads(out)) == (0, {"n": 2})
    assert err.splitlines()[-1].endswith("done")
    assert platform.job("obedient", waiting)["status"] == "done"


def test_jobs_are_canceled_at_once_or_after_a_grace_time(platform: PlatformProcess, obedient: Path, gate: Path) -> None:
    stubborn = platform.submit("obedient", {"gate": str(gate), "stubborn": True})
    wait_for(lambda: platform.job("obedient", stubborn)["status"] == "running", "the worker is busy")
    waiting = [platform.submit("obedient", {"gate": str(gate)}) for _ in range(3)]
    finished = platform.jig("jobs", "cancel", waiting[0], stubborn, "--grace", "0", cwd=obedient)
    assert finished.stdout.startswith(f"{waiting[0]}  canceled\n{stubborn}  ")
    assert platform.finished("obedient", stubborn)["status"] == "canceled"
    # The replica that takes the place of the stubborn one's may have the next job already.
    assert platform.jig("queue_clear", "--yes", cwd=obedient).stdout in ("2 jobs canceled.\n", "1 job canceled.\n")
    gate.touch()
    finished = platform.jig("jobs", "cancel", waiting[0], "nope", cwd=obedient, check=False)
    assert finished.returncode == 1
    assert finished.stdout.startswith(f"{waiting[0]}  canceled\nnope  There is no job")


def test_settings_bound_the_queue_and_a_full_one_is_waited_for(
    platform: PlatformProcess, obedient: Path, gate: Path
) -> None:
    words = ("--max-pending", 5, "--weight", "acme=3", "--cap", "acme=2", "--keep", "2d")
    changed = json.loads(platform.jig("queue-settings", *words, "--json", cwd=obedient).stdout)
    assert changed["keys"] == {"acme": {"weight": 3.0, "max_running": 2}}
    assert (changed["max_pending"], changed["keep_seconds"]) == (5, 172_800)
    for _ in range(5):
        platform.submit("obedient", {"gate": str(gate)})
    write_jobs(obedient, 3)
    with started(platform, obedient, "submit", "--file", "jobs.jsonl") as process:
        next_line(process, "the queue is full")
        gate.touch()
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "3 done." in out
    nothing = ("--weight", "acme=none", "--cap", "acme=none", "--max-pending", 1_000_000)
    assert json.loads(platform.jig("queue-settings", *nothing, "--json", cwd=obedient).stdout)["keys"] == {}


def test_a_submit_is_one_job_however_often_it_is_sent(platform: PlatformProcess, obedient: Path, gate: Path) -> None:
    first = platform.jig("submit", "--payload", '{"n": 1}', "--idempotency-key", "once", cwd=obedient)
    again = platform.jig("submit", "--payload", '{"n": 1}', "--idempotency-key", "once", cwd=obedient)
    assert first.stdout == again.stdout
    assert "was submitted before with this key" in again.stderr
    other = platform.jig("submit", "--payload", '{"n": 2}', "--idempotency-key", "once", cwd=obedient, check=False)
    assert other.returncode == 1
    assert "another payload" in other.stderr
    payload = json.dumps({"gate": str(gate)})
    late = platform.jig("submit", "--payload", payload, "--deadline", "0.5s", "--watch", cwd=obedient, check=False)
    assert late.returncode == 1
    assert "deadline" in late.stderr


def test_a_run_survives_the_server_and_doubles_no_job(
    own_platform: PlatformProcess, tmp_path: Path, gate: Path
) -> None:
    folder = write_worker(tmp_path / "obedient", "obedient", OBEDIENT)
    own_platform.deploy(folder)
    lines = [json.dumps({"n": n, "gate": str(gate)}) for n in range(1500)]
    (folder / "jobs.jsonl").write_text("\n".join(lines))
    with started(own_platform, folder, "submit", "--file", "jobs.jsonl", "-o", "results.jsonl", "--json") as process:
        # A claim whose answer is lost would be held until it expires: the worker has its job, and asks for no other.
        wait_for(Path(f"{gate}.waited-for").exists, "the worker has a job")
        own_platform.kill()
        own_platform.start()
        gate.touch()
        out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert json.loads(out)["done"] == 1500
    results = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [each["outputs"]["n"] for each in results] == list(range(1500))
    listed = json.loads(own_platform.jig("jobs", "list", "--all", "--json", cwd=folder).stdout)["data"]
    assert {job["request_id"] for job in listed} == {each["request_id"] for each in results}


def test_a_terminal_shows_a_bar_and_a_line_that_is_redrawn(platform: PlatformProcess, obedient: Path) -> None:
    write_jobs(obedient, 3)
    seen = at_terminal(platform, obedient, "submit", "--file", "jobs.jsonl")
    assert "3/3" in seen
    assert "3 done." in seen
    seen = at_terminal(platform, obedient, "submit", "--payload", '{"n": 7}', "--watch")
    assert re.search(r"\r\x1b\[2K +\d\.\d\d s  done\r\n", seen)
    assert '"n": 7' in seen


def at_terminal(platform: PlatformProcess, folder: Path, *words: str) -> str:
    """All that a person sees of a command that succeeds."""
    ours, theirs = pty.openpty()
    environment = {**platform.environment, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [BIN / "jig", *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    timer = threading.Timer(SECONDS_MAX, process.kill)
    timer.start()
    pieces = []
    try:
        while piece := os.read(ours, 4096):
            pieces.append(piece)
    except OSError:  # the other end is closed
        pass
    finally:
        timer.cancel()
        os.close(ours)
    seen = b"".join(pieces).decode()
    assert process.wait(timeout=SECONDS_MAX) == 0, seen
    return seen
