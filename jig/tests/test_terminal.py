"""What a person at a terminal sees: the same commands with stderr on a pseudo-terminal."""

import os
import pty
import subprocess

import pytest

from .conftest import JIG, SECONDS_MAX
from .fake_platform import READY, WAITING


@pytest.fixture
def at_terminal(jig):
    """Runs jig with a terminal for stderr; returns its exit code and what the terminal got."""

    def run(*words, **environment):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [str(JIG), *words],
            cwd=jig.folder,
            env={**jig.environment, "TERM": "xterm", "COLUMNS": "100", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        pieces = []
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            while True:
                try:
                    piece = terminal.read(4096)
                except OSError:  # the other end is closed
                    break
                if not piece:
                    break
                pieces.append(piece)
        return process.wait(timeout=SECONDS_MAX), b"".join(pieces).decode()

    return run


def test_a_rollout_is_redrawn_until_it_is_ready(at_terminal, platform, project):
    platform.rollout = [WAITING, WAITING, READY]
    code, seen = at_terminal("deploy")
    assert code == 0
    assert "waiting for a replica" in seen
    assert "Making ready." in seen
    assert seen.count("\x1b[2K") > 1  # lines are erased and drawn again
    assert "1 of 1 replica" in seen.rstrip().splitlines()[-1]


def test_errors_are_red_unless_colours_are_not_wanted(at_terminal, platform):
    code, seen = at_terminal("status", "nobody")
    assert code == 1
    assert "\x1b[31mjig: There is no deployment nobody.\x1b[0m" in seen
    assert "\x1b[3" not in at_terminal("status", "nobody", NO_COLOR="1")[1]


def test_json_leaves_the_terminal_alone(at_terminal, platform, project):
    assert at_terminal("deploy", "--json") == (0, "")
