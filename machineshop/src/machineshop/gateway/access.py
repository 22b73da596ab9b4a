"""The access log: a line for each request that the gateway answered."""

import logging
import time

import msgspec

from machineshop.gateway.asked import Asked

log = logging.getLogger(__name__)

# What nginx says of a caller that went before it had its answer.
CLIENT_GONE = 499


class Entry(msgspec.Struct):
    """What is known of a request by its end."""

    began: float
    status: int | None = None
    deployment: str = "-"
    replica: str = "-"
    key: str = "-"
    """The printed beginning of the caller's key."""
    answered_bytes: int = 0


def log_access(asked: Asked, entry: Entry) -> None:
    """Write the line. The query is left out: people put secrets there."""
    if not log.isEnabledFor(logging.INFO):
        return
    log.info(
        "gateway.access method=%s path=%s status=%s ms=%.1f in=%d out=%d deployment=%s replica=%s key=%s client=%s "
        "request_id=%s",
        asked.method,
        _printable(asked.raw_path),
        entry.status or "-",
        (time.monotonic() - entry.began) * 1e3,
        asked.taken_bytes,
        entry.answered_bytes,
        entry.deployment,
        entry.replica,
        entry.key,
        asked.client,
        _printable(asked.request_id),
    )


def _printable(text: bytes) -> str:
    """What a caller sent, so that it can neither end the line nor look like a part of it."""
    return text.decode("ascii", "backslashreplace").replace(" ", "%20").replace('"', "%22")
