"""What is in files, told by their SHA-256, which the platform knows them by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from jig.errors import VolumeError
from jig.volumes.crew import Crew, Unit
from jig.volumes.source import SourceFile

CHUNK_BYTES = 256 * 1024
THREADS_MAX = 8  # a disk of today wants several readers at once


@dataclass(frozen=True)
class HashedFile:
    """A file, and the SHA-256 of its bytes in hexadecimal."""

    file: SourceFile
    sha256: str


def hash_files(files: Sequence[SourceFile], progress: Callable[[int], None]) -> list[HashedFile]:
    """Read all files, several at a time.

    Args:
        files: what to read.
        progress: called with the number of bytes that have just been read.

    Raises:
        VolumeError: one cannot be read, or changes while it is.
    """
    digests = dict.fromkeys((file.name for file in files), "")
    crew = Crew(min(THREADS_MAX, os.cpu_count() or 1))

    def hash_one(file: SourceFile) -> tuple[Unit, ...]:
        hasher = hashlib.sha256()
        for chunk in read(file, 0, file.size_bytes):
            crew.check()
            hasher.update(chunk)
            progress(len(chunk))
        digests[file.name] = hasher.hexdigest()
        return ()

    crew.run(partial(hash_one, file) for file in files)
    return [HashedFile(file, digests[file.name]) for file in files]


def changed(file: SourceFile) -> VolumeError:
    """The error for a file that is not what it was when its digest was taken."""
    hint = "Run the same command again when nothing writes to the folder any more."
    return VolumeError(f"{file.place} has changed since it was read.", hint=hint)


def read(file: SourceFile, start: int, end: int) -> Iterator[bytes]:
    """The file's bytes from one place to another, in pieces; the file is the same before and after.

    Raises:
        VolumeError: it cannot be read, or somebody writes to it.
    """
    try:
        with file.place.open("rb", buffering=0) as opened:
            file.check_unchanged(os.fstat(opened.fileno()))
            opened.seek(start)
            at = start
            while at < end and (chunk := opened.read(min(CHUNK_BYTES, end - at))):
                at += len(chunk)
                if at == end:  # whoever takes exactly what it was promised does not come back for more
                    file.check_unchanged(os.fstat(opened.fileno()))
                yield chunk
            if at < end:
                file.check_unchanged(os.fstat(opened.fileno()))
                raise VolumeError(f"{file.place} ends after {at} of its {file.size_bytes} bytes.")
    except OSError as error:
        raise VolumeError(f"Cannot read {file.place}: {error.strerror}.") from error
