"""What a person at a terminal sees: the same commands with stderr on a pseudo-terminal."""

import os
import pty
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

import pytest
from fake_platform import READY, WAITING, FakePlatform
from jig_process import JIG, SECONDS_MAX, Finished, Jig


class AtTerminal(Protocol):
    """Runs jig with a terminal for stderr; stdout is a file."""

    def __call__(self, *words: str, **environment: str) -> Finished: ...


@pytest.fixture
def at_terminal(jig: Jig) -> AtTerminal:
    def run(*words: str, **environment: str) -> Finished:
        ours, theirs = pty.openpty()
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(
                [str(JIG), *words],
                cwd=jig.folder,
                env={**jig.environment, "TERM": "xterm", "COLUMNS": "100", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=theirs,
            )
            os.close(theirs)
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
