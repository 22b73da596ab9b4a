"""Identifiers: UUIDs of version 7, which sort by the time they were made."""

import os
import time
import uuid

_LOW_12, _LOW_62 = (1 << 12) - 1, (1 << 62) - 1


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits."""
    return _id_of(time.time_ns() // 1_000_000, os.urandom(10))


def is_id(text: str) -> bool:
    """Whether this could be one of our ids: then it is safe as the name of a file, and nothing may be called so."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def new_ids(count: int) -> list[str]:
    """Several at once, for less than one after the other."""
    milliseconds = time.time_ns() // 1_000_000
    random = os.urandom(10 * count)
    return [_id_of(milliseconds, random[at : at + 10]) for at in range(0, 10 * count, 10)]


def _id_of(milliseconds: int, random_bytes: bytes) -> str:
    random = int.from_bytes(random_bytes)
    number = milliseconds << 80 | 0x7 << 76 | (random >> 62 & _LOW_12) << 64 | 0b10 << 62 | random & _LOW_62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
