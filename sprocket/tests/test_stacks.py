"""The stacks of another process, and what of them is worth a look."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sprocket import stacks

PROGRAM = """
import ctypes, os, sys, threading, time
from sprocket.stacks import tell_stacks
from pathlib import Path

def in_the_models_code():
    print("waiting", flush=True)
    time.sleep(60)

tell_stacks(Path(sys.argv[1]))
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process on a busy machine halts in the middle of writing its stacks."""
    monkeypatch.setattr(stacks, "WRITING_SECONDS", 60.0)
    monkeypatch.setattr(stacks, "PAUSE_SECONDS", 0.2)


@asynccontextmanager
async def program(path: Path, last_line: str) -> AsyncIterator[asyncio.subprocess.Process]:
    source = path.with_name("program.py")
    source.write_text(f"{PROGRAM}{last_line}\n")
    process = await asyncio.create_subprocess_exec(sys.executable, source, path, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await asyncio.wait_for(process.stdout.readline(), 60)


async def test_a_process_says_what_its_threads_are_at(tmp_path: Path) -> None:
    path = tmp_path / "stacks"
    async with program(path, "in_the_models_code()") as process:
        await line_of(process)

        text = await stacks.stacks_of(process.pid, path)

    assert "in in_the_models_code" in text
    assert "in wait" in text
    worth_reading = stacks.stacks_worth_reading(text, 10_000)
    assert "in in_the_models_code" in worth_reading
    assert "threading.py" not in worth_reading


async def test_a_second_look_finds_the_new_stacks(tmp_path: Path) -> None:
    path = tmp_path / "stacks"
    async with program(path, "in_the_models_code()") as process:
        await line_of(process)

        once = await stacks.stacks_of(process.pid, path)
        twice = await stacks.stacks_of(process.pid, path)

    assert twice.count("in_the_models_code") == 2 * once.count("in_the_models_code")


async def test_a_process_that_crashes_leaves_its_stacks(tmp_path: Path) -> None:
    path = tmp_path / "stacks"
    async with program(path, "def crash():\n    ctypes.string_at(0)\ncrash()") as process:
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGSEGV

    text = stacks.stacks_worth_reading(await stacks.stacks_of(None, path), 10_000)
    assert text.startswith("Fatal Python error: Segmentation fault")
    assert "in crash" in text


async def test_a_process_that_is_stopped_gives_none_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "WRITING_SECONDS", 0.1)
    path = tmp_path / "stacks"
    async with program(path, "in_the_models_code()") as process:
        await line_of(process)
        process.send_signal(signal.SIGSTOP)

        assert await stacks.stacks_of(process.pid, path) == ""


def test_threads_that_wait_in_sprocket_are_left_out() -> None:
    sprocket = str(Path(stacks.__file__).parent)
    python = stacks._PYTHONS
    text = (
        "Thread 0x01 (most recent call first):\n"
        f'  File "{python}/threading.py", line 327 in wait\n'
        '  File "/app/worker.py", line 7 in predict\n'
        f'  File "{sprocket}/engine.py", line 136 in _outcome_of\n'
        "\n"
        "Thread 0x02 (most recent call first):\n"
        f'  File "{stacks._INSTALLED}/torch/distributed/c.py", line 9 in all_reduce\n'
        "\n"
        "Thread 0x03 (most recent call first):\n"
        f'  File "{python}/concurrent/futures/thread.py", line 81 in _worker\n'
        "\n"
        "Current thread 0x04 (most recent call first):\n"
        f'  File "{sprocket}/host.py", line 50 in _messages\n'
        '  File "/app/worker.py", line 12 in <module>\n'
    )

    kept = stacks.stacks_worth_reading(text, 10_000)

    assert "0x01" in kept
    assert "0x02" in kept
    assert "0x03" not in kept
    assert "0x04" not in kept


def test_what_is_kept_has_a_limit() -> None:
    text = 'Thread 0x01 (most recent call first):\n  File "/app/worker.py", line 7 in predict\n'
    assert stacks.stacks_worth_reading(text * 100, 500).endswith("…")
    assert len(stacks.stacks_worth_reading(text * 100, 500)) == 500


def test_where_no_thread_is_the_models_all_are_kept() -> None:
    text = f'Thread 0x03 (most recent call first):\n  File "{stacks._PYTHONS}/threading.py", line 81 in wait\n'
    assert stacks.stacks_worth_reading(text, 500) == text.strip()
