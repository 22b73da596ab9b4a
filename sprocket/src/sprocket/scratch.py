"""A directory per job for its input files, under one per process; removed when the job ends."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path


class Scratch:
    """Makes and removes job directories. Nothing is made before the first file is needed."""

    def __init__(self) -> None:
        self._root: Path | None = None

    def make(self) -> Path:
        """Make a new, empty directory."""
        if self._root is None or not self._root.is_dir():
            self._root = Path(tempfile.mkdtemp(prefix="sprocket-"))
        return Path(tempfile.mkdtemp(prefix="job-", dir=self._root))

    async def remove(self, directory: Path) -> None:
        """Remove a job's directory, off the event loop: it may hold gigabytes."""
        await asyncio.get_running_loop().run_in_executor(None, _remove, directory)

    def close(self) -> None:
        """Remove everything."""
        if self._root is not None:
            _remove(self._root)


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
