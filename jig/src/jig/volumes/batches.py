"""Small files, many of them in one request: alone, each would cost two requests and a commit of the platform's disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from jig.errors import PlatformError
from jig.volumes.digests import HashedFile, changed, read
from jig.volumes.remote import Version
from jig.volumes.transfer import Transfer

SMALL_BELOW_BYTES = 1024 * 1024  # the bytes of a larger one take longer than its requests
# What the platform has in memory of each batch, and what is sent again where one breaks off.
BATCH_BYTES = 2 * 1024 * 1024
BATCH_FILES = 500  # the platform takes no more
PIECE_BYTES = 64 * 1024
DIGEST_MISMATCH = "digest_mismatch"

T = TypeVar("T")


def batches_of(files: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Files in batches, each of `BATCH_BYTES` and `BATCH_FILES` at most. Pure."""
    batch: list[T] = []
    batch_bytes = 0
    for each in files:
        size_bytes = size_of(each)
        if batch and (batch_bytes + size_bytes > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(each)
        batch_bytes += size_bytes
    if batch:
        yield batch


def send_batch(transfer: Transfer, version: Version, batch: Sequence[HashedFile]) -> None:
    """Some files in one request: the platform keeps all of them or none.

    Raises:
        PlatformError: the platform refuses them, or is away for too long.
        VolumeError: one cannot be read, or has changed.
    """
    size_bytes = sum(each.file.size_bytes for each in batch)
    target = {"url": version.files_path, "method": "PUT"}
    try:
        transfer.put(target, lambda: pieces_of(batch), size_bytes, head=head_of(batch))
    except PlatformError as error:
        if error.body.get("code") != DIGEST_MISMATCH:
            raise
        raise changed(named_in(error.message, batch).file) from error


def named_in(message: str, batch: Sequence[HashedFile]) -> HashedFile:
    """The file that a message names in quotes; names may hold quotes too, so it is the longest one. Pure."""
    named = [each for each in batch if f"'{each.file.name}'" in message]
    return max(named, key=lambda each: len(each.file.name), default=batch[0])


def head_of(batch: Sequence[HashedFile]) -> bytes:
    """The line that stands before the bytes: which files they are. Pure."""
    files = [{"path": each.file.name, "size": each.file.size_bytes, "sha256": each.sha256} for each in batch]
    return json.dumps({"files": files}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def pieces_of(batch: Sequence[HashedFile]) -> Iterator[bytes]:
    """The bytes of all of them, in pieces that are worth a system call."""
    piece: list[bytes] = []
    size_bytes = 0
    for each in batch:
        for chunk in read(each.file, 0, each.file.size_bytes):
            piece.append(chunk)
            size_bytes += len(chunk)
            if size_bytes >= PIECE_BYTES:
                yield b"".join(piece)
                piece, size_bytes = [], 0
    if piece:
        yield b"".join(piece)
