"""A directory per job for its input files, under one per process; removed when the job ends.

A process that is killed removes nothing, so the next one that starts does: it tells the directories of the living by
the lock that each holds on its own until it ends, however it ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from .logs import log

PREFIX = "sprocket-jobs-"
OURS = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")


class Scratch:
    """Makes and removes job directories. Nothing is made before the first file is needed."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._lock: int | None = None

    def make(self) -> Path:
        """Make a new, empty directory."""
        if self._root is None or not self._root.is_dir():
            self._unlock()
            self._root, self._lock = _make_root()
        return Path(tempfile.mkdtemp(prefix="job-", dir=self._root))

    async def remove(self, directory: Path) -> None:
        """Remove a job's directory, off the event loop: it may hold gigabytes."""
        await asyncio.get_running_loop().run_in_executor(None, self.remove_now, directory)

    def remove_now(self, directory: Path) -> None:
        """Remove a job's directory, or what is left of it."""
        _remove(directory)

    def close(self) -> None:
        """Remove everything."""
        if self._root is not None:
            _remove(self._root)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_leftovers() -> int:
    """Remove what processes left that were killed; give how many directories. Those of the living stay."""
    found = Path(tempfile.gettempdir()).glob(f"{PREFIX}*")
    removed = sum(_remove_if_left(path) for path in found if OURS.fullmatch(path.name))
    if removed:
        log.info("removed what killed workers had left, in %d directories", removed)
    return removed


def _make_root() -> tuple[Path, int | None]:
    while True:
        root = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody who clears up has taken it for a leftover: it is about to go
            os.close(lock)
            continue
        except OSError:  # a file system without locks, on which nobody clears up either
            os.close(lock)
            return root, None
        if root.is_dir():
            return root, lock
        os.close(lock)  # gone between the two steps


def _remove_if_left(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
