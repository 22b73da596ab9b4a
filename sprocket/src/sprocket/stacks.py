"""What every thread of a process is at, from outside: for a process that does not answer, or is about to crash.

Python's own fault handler writes the stacks into a file when a signal comes. It does that inside the signal, without
the global lock, so also where native code holds it: in a collective of several GPUs that never ends, for instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import re
import signal
import sysconfig
import time
from pathlib import Path
from typing import IO

ASK = signal.SIGUSR2
"""Asks a process for its stacks."""

WRITING_SECONDS = 2.0
"""For the stacks to arrive; a process that is stopped, or waits for a dead disk, never writes them."""
PAUSE_SECONDS = 0.02

_HEADING = re.compile(r"^(?=(?:Current thread|Thread) 0x)", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.*)", line \d+ in ', re.MULTILINE)
_SPROCKETS = str(Path(__file__).parent)
_PYTHONS = sysconfig.get_paths()["stdlib"]
_INSTALLED = sysconfig.get_paths()["purelib"]
"""May lie inside of Python's own."""

_file: IO[str] | None = None
"""Open as long as the process lives: the fault handler keeps its number."""


def ignore_asking() -> None:
    """Ignore that signal, and have it ignored in the processes that are started from now on, until they listen to it.

    Without that, a rank that still loads its libraries would be ended by it. To be called in the main thread.
    """
    signal.signal(ASK, signal.SIG_IGN)


def tell_stacks(path: Path) -> None:
    """Have this process write its stacks into a file when it is asked for them, and when it crashes."""
    global _file  # noqa: PLW0603 - the fault handler is the process's one as well
    _file = path.open("w")
    faulthandler.enable(_file)
    faulthandler.register(ASK, _file)


async def stacks_of(pid: int | None, path: Path) -> str:
    """Ask a process for its stacks; empty where it gives none within 2 s.

    Args:
        pid: the process; None: it has ended, and may have left them.
        path: the file that it writes to.
    """
    if pid is not None:
        before_bytes = _size_bytes(path)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, ASK)
            await _written(path, before_bytes)
    return _text_of(path)


async def _written(path: Path, before_bytes: int) -> None:
    """Wait until a file has grown, and grows no more."""
    deadline = time.monotonic() + WRITING_SECONDS
    seen_bytes = before_bytes
    while time.monotonic() < deadline:
        await asyncio.sleep(PAUSE_SECONDS)
        size_bytes = _size_bytes(path)
        if before_bytes < size_bytes == seen_bytes:
            return
        seen_bytes = size_bytes


def stacks_worth_reading(text: str, limit_chars: int) -> str:
    """Leave out the threads in which sprocket and Python wait for something, and cut the rest."""
    preface, *threads = _HEADING.split(text)
    kept = (preface + "".join([t for t in threads if _is_at_work(t)] or threads)).strip()
    return kept if len(kept) <= limit_chars else kept[: limit_chars - 1] + "…"


def _is_at_work(thread: str) -> bool:
    """Whether a thread is in code of the model's, or waits on its behalf in Python's own."""
    innermost = next((path for path in _FRAME.findall(thread) if not _is_pythons(path)), _SPROCKETS)
    return not innermost.startswith(_SPROCKETS)


def _is_pythons(path: str) -> bool:
    return path.startswith(("<", _PYTHONS)) and not path.startswith(_INSTALLED)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
