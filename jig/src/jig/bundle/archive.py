"""A deterministic tar.gz: sorted, without times, owners or names, so that the same source has the same digest."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from jig.bundle.source import Entry
from jig.errors import BundleError
from jig.units import size

LAYER_BYTES_MAX = 512 * 1024**2  # the platform takes no larger source layer
COMPRESSION_LEVEL = 6
BIGGEST_SHOWN = 3


class CountingFile:
    """A file to write to that knows how much went in, and its digest, and stops at the limit."""

    def __init__(self, file: IO[bytes], limit_bytes: int) -> None:
        self._file = file
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        """`sha256:...` of what was written."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> int:
        """Write, unless it would be too much.

        Raises:
            BundleError: the limit is passed.
        """
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise BundleError(f"The project's files are larger than {size(self._limit_bytes)}, the most for a bundle.")
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Flush the file below."""
        self._file.flush()


def write_archive(folder: Path, entries: Iterable[Entry], file: IO[bytes]) -> tuple[str, int]:
    """Write the entries as a tar.gz; return its digest and its size in bytes.

    Raises:
        BundleError: it gets too large, or a file cannot be read.
    """
    entries = list(entries)
    counting = CountingFile(file, LAYER_BYTES_MAX)
    sink = cast("IO[bytes]", counting)
    try:
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=sink, compresslevel=COMPRESSION_LEVEL, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for entry in entries:
                add(archive, folder, entry)
    except BundleError as error:
        raise BundleError(error.message, hint=f"The largest: {largest(entries)}.") from error
    return counting.digest, counting.size_bytes


def add(archive: tarfile.TarFile, folder: Path, entry: Entry) -> None:
    """Add one entry.

    Raises:
        BundleError: the file cannot be read, or changes while it is.
    """
    header = tar_header(entry)
    if not entry.is_file:
        archive.addfile(header)
        return
    if entry.content is not None:
        archive.addfile(header, BytesIO(entry.content))
        return
    try:
        with (folder / entry.path).open("rb") as content:
            archive.addfile(header, content)
    except OSError as error:
        raise BundleError(f"Cannot read {entry.path}: {error.strerror or error}.") from error


def tar_header(entry: Entry) -> tarfile.TarInfo:
    """The header of an entry: kind, size, and whether it may be run; nothing else of where it came from."""
    header = tarfile.TarInfo(entry.path)
    header.mtime = 0
    if entry.link is not None:
        header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link, 0o777
    elif not entry.is_file:
        header.type, header.mode = tarfile.DIRTYPE, 0o755
    else:
        header.size = entry.size_bytes
        header.mode = 0o755 if entry.mode & 0o100 else 0o644
    return header


def largest(entries: Iterable[Entry]) -> str:
    """The biggest files, named with their sizes."""
    ordered = sorted(entries, key=lambda entry: entry.size_bytes, reverse=True)
    return ", ".join(f"{entry.path} ({size(entry.size_bytes)})" for entry in ordered[:BIGGEST_SHOWN])
