"""What a person at a terminal sees: the same commands with stderr on a pseudo-terminal."""

import os
import pty
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

import pytest
from fake_platform import READY, WAITING, FakePlatform
from fake_queue import HOLD
from jig_process import JIG, SECONDS_MAX, Finished, Jig
from rich.progress import Task, TaskID

from jig.speed import Speed


class AtTerminal(Protocol):
    """Runs jig with a terminal for stderr, and for stdin where something is typed; stdout is a file."""

    def __call__(self, *words: str, typed: str = "", **environment: str) -> Finished: ...


@pytest.fixture
def at_terminal(jig: Jig) -> AtTerminal:
    def run(*words: str, typed: str = "", **environment: str) -> Finished:
        ours, theirs = pty.openpty()
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(
                [str(JIG), *words],
                cwd=jig.folder,
                env={**jig.environment, "TERM": "xterm", "COLUMNS": "100", **environment},
                stdin=theirs if typed else subprocess.DEVNULL,
                stdout=out,
                stderr=theirs,
            )
            os.close(theirs)
            os.write(ours, typed.encode())
            seen = read_terminal(ours)
            code = process.wait(timeout=SECONDS_MAX)
            out.seek(0)
            return Finished(code, out.read(), seen)

    return run


def read_terminal(descriptor: int) -> str:
    """Everything that is written to a terminal until its other end is closed."""
    pieces = []
    with os.fdopen(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                piece = terminal.read(4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_a_rollout_is_redrawn_until_it_is_ready(at_terminal: AtTerminal, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [WAITING, WAITING, READY]
    finished = at_terminal("deploy")
    assert finished.code == 0
    assert "waiting for a replica" in finished.err
    assert "Making ready." in finished.err
    assert finished.err.count("\x1b[2K") > 1  # lines are erased and drawn again
    assert "1 of 1 replica" in finished.err.rstrip().splitlines()[-1]
    assert "jig submit" in finished.out


def test_errors_are_red_unless_colours_are_not_wanted(at_terminal: AtTerminal, platform: FakePlatform) -> None:
    coloured = at_terminal("status", "nobody")
    assert coloured.code == 1
    assert "\x1b[31mjig: There is no deployment nobody.\x1b[0m" in coloured.err
    plain = at_terminal("status", "nobody", NO_COLOR="1")
    assert (plain.code, plain.out) == (1, "")
    assert "jig: There is no deployment nobody." in plain.err
    assert "\x1b[3" not in plain.err


def test_json_leaves_the_terminal_alone(at_terminal: AtTerminal, platform: FakePlatform, project: Path) -> None:
    finished = at_terminal("deploy", "--json")
    assert (finished.code, finished.err) == (0, "")
    assert finished.json["deployment"]["name"] == "hello"
    assert finished.json["image"] == platform.deployments["hello"]["image"]


def test_a_queue_is_cleared_once_somebody_says_yes(
    at_terminal: AtTerminal, platform: FakePlatform, project: Path
) -> None:
    finished = at_terminal("queue-clear", typed="n\n")
    assert finished.code == 2
    assert "Cancel 2 waiting jobs of hello? [y/N] " in finished.err
    assert "Left as it is." in finished.err
    assert not platform.sent("POST", "/v1/queue/clear")
    finished = at_terminal("queue_clear", typed="y\n")
    assert (finished.code, finished.out) == (0, "3 jobs canceled.\n")


def test_a_secret_that_nothing_was_typed_for_is_not_sent(jig: Jig, platform: FakePlatform, project: Path) -> None:
    ours, theirs = pty.openpty()
    words = [str(JIG), "secrets", "set", "TOKEN"]
    with subprocess.Popen(
        words, cwd=jig.folder, env=jig.environment, stdin=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        asked = b""
        while b"Value of TOKEN: " not in asked:  # what is typed before that is thrown away
            asked += os.read(ours, 4096)
        os.write(ours, b"\n")
        assert "The value is empty." in read_terminal(ours)
        assert process.wait(timeout=SECONDS_MAX) == 2
    assert not platform.requests


def test_a_watched_job_has_one_line_for_each_state(
    at_terminal: AtTerminal, platform: FakePlatform, project: Path
) -> None:
    platform.rollout = [READY]
    platform.deploy("hello")
    queue = {"position": 3, "reason": "all_busy", "message": "Both replicas are busy " + "x" * 200, "estimate": None}
    request_id = platform.queue.put("pending", queue=queue)
    platform.queue.outcome = lambda job: {"status": "done", "outputs": {"text": "hi"}}
    platform.queue.looks_until_ended = 3  # it is seen to wait twice, a second apart
    platform.queue.connections = [[("1", {**platform.queue.jobs[request_id], "queue": None}), HOLD]]
    finished = at_terminal("jobs", "watch", request_id)
    platform.queue.may_end.set()
    assert finished.json == {"text": "hi"}
    pending, done = finished.err.rstrip("\r\n").split("\r\n")
    assert pending.count("\r\x1b[2K") == 2
    shown = pending.rpartition("\x1b[2K")[2]
    assert "pending, position 3: both replicas are busy xxx" in shown
    assert len(shown) == 99  # cut to the terminal, so that it can be drawn again
    assert done.endswith("  done")


def test_a_file_of_jobs_has_a_bar_that_goes_away(
    at_terminal: AtTerminal, platform: FakePlatform, project: Path
) -> None:
    (project / "jobs.jsonl").write_text('{"n": 1}\n' * 1500)
    platform.queue.looks_until_ended = 3
    finished = at_terminal("submit", "--file", "jobs.jsonl")
    assert finished.code == 0
    assert "1500/1500" in finished.err
    assert "1,500 done" in finished.err
    assert finished.err.rstrip("\r\n").endswith("\x1b[2K")
    assert "1,500 done." in finished.out


def test_a_push_of_what_the_registry_has_shows_no_bar(
    at_terminal: AtTerminal, platform: FakePlatform, project: Path
) -> None:
    assert "push " in bars(at_terminal("deploy", "--detach").err)
    again = at_terminal("deploy", "--detach").err
    assert "nothing new to send" in again
    assert "push " not in bars(again)


def bars(seen: str) -> str:
    """The lines that were redrawn."""
    return "".join(line for line in seen.splitlines() if "━" in line)


def test_sizes_and_speeds_of_a_bar_are_in_one_kind_of_unit() -> None:
    task = Task(TaskID(0), "upload", 4096 * 1024, 4096 * 1024, _get_time=lambda: 2.0, finished_speed=2048 * 1024)
    assert str(Speed().render(task)) == "2.0 MiB/s"
