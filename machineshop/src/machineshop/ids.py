"""Identifiers: UUIDs of version 7, which sort by the time they were made."""

import os
import time

_LOW_12, _LOW_62 = (1 << 12) - 1, (1 << 62) - 1


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits."""
    random = int.from_bytes(os.urandom(10))
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | 0x7 << 76 | (random >> 62 & _LOW_12) << 64 | 0b10 << 62 | random & _LOW_62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
