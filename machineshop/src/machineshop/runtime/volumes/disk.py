"""What the cache of volumes needs to know of this machine's disk."""

import ctypes
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple


class Space(NamedTuple):
    """In bytes."""

    total: int
    free: int


def space(folder: Path) -> Space:
    """Of the disk that a folder is on; what is reserved for the superuser is not free."""
    usage = shutil.disk_usage(folder)
    return Space(usage.total, usage.free)


def flush(folder: Path) -> None:
    """Put all that was written to a folder's file system on disk: one call for any number of files."""
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """Another one each time that the machine starts, where that can be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
