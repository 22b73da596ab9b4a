"""Small files as they come down, many in one answer: each is what was asked for, to the last byte, or an error. Pure.

The answer is a line of JSON that says which files follow, and behind its line feed their bytes, one behind the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

from jig.errors import UnreachableError, VolumeError
from jig.volumes.remote import StoredFile

HEAD_BYTES_MAX = 4 * 1024 * 1024  # 500 of the longest paths, with every character escaped, come to less


def unpack(pieces: Iterable[bytes], asked: Sequence[StoredFile]) -> Iterator[tuple[StoredFile, bytes]]:
    """The files of an answer, each once all of its bytes are there and have its SHA-256.

    Args:
        pieces: the answer, cut anywhere.
        asked: the files that were asked for, in this order.

    Raises:
        VolumeError: other files come, or other bytes.
        UnreachableError: it ends too early.
    """
    incoming = iter(pieces)
    buffer = bytearray()
    end = -1
    while (end := buffer.find(b"\n", max(0, end))) < 0:
        end = len(buffer)
        if end > HEAD_BYTES_MAX:
            raise unasked()
        buffer += following(incoming)
    check_head(bytes(buffer[:end]), asked)
    del buffer[: end + 1]
    for file in asked:
        while len(buffer) < file.size_bytes:
            buffer += following(incoming)
        content = bytes(buffer[: file.size_bytes])
        del buffer[: file.size_bytes]
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise damaged(file)
        yield file, content
    if buffer or any(incoming):
        raise unasked()


def check_head(line: bytes, asked: Sequence[StoredFile]) -> None:
    """Compare what an answer says of its files with what was asked for.

    Raises:
        VolumeError: it says something else.
    """
    try:
        told = [(each["path"], each["size"], each["sha256"]) for each in json.loads(line)["files"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise unasked() from None
    if told != [(each.name, each.size_bytes, each.sha256) for each in asked]:
        raise unasked()


def following(pieces: Iterator[bytes]) -> bytes:
    """The next piece.

    Raises:
        UnreachableError: there is none.
    """
    for piece in pieces:
        return piece
    raise UnreachableError("The platform's answer ended too early.")


def unasked() -> VolumeError:
    """The error for an answer that is not what was asked for."""
    hint = "If somebody still uploads into this version, run the same command again when they are done."
    return VolumeError("The platform sent other files than it had listed.", hint=hint)


def damaged(file: StoredFile) -> VolumeError:
    """The error for bytes that are others than the platform says."""
    return VolumeError(
        f"The bytes of {file.name!r} arrived with another SHA-256 than the platform says they have; none were kept.",
        hint="Run the same command again. If it stays so, the file is damaged in the platform's storage.",
    )
