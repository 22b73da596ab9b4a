"""What streaming models have given of their outputs while their jobs run.

The rows of an attempt count only while it runs: the result holds whatever is to be kept. Nobody looks at them after
that, and they are removed from time to time.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection

from machineshop.errors import PayloadTooLarge
from machineshop.states import JobState
from machineshop.store.statement import Statement

# All that an attempt may give this way: a result that holds it can be no larger.
CHUNKS_LIMIT_BYTES = 16 * 1024 * 1024
# What one look reads at most, and one batch more: who has not read for long catches up in steps.
READ_BYTES = 1024 * 1024
_VALUES = msgspec.json.Decoder(list[msgspec.Raw])


class Chunks(msgspec.Struct, frozen=True):
    """Some of them, in their order."""

    first: int
    """How many of the attempt's came before."""
    values: list[msgspec.Raw]
    """Any JSON values."""

    @property
    def end(self) -> int:
        """How many there are of the attempt up to here."""
        return self.first + len(self.values)

    @property
    def size_bytes(self) -> int:
        """How much JSON it is."""
        return sum(len(bytes(value)) for value in self.values)


def check_room(conn: Connection, job_id: str, chunks: Chunks) -> None:
    """Refuse what would be too much of one attempt.

    Raises:
        PayloadTooLarge: It would.
    """
    if _total_before(conn, job_id, chunks.first) + chunks.size_bytes > CHUNKS_LIMIT_BYTES:
        raise PayloadTooLarge(
            what="All that the job has given in chunks", limit_bytes=CHUNKS_LIMIT_BYTES, mend="Return it at the end."
        )


def append(conn: Connection, job_id: str, attempt: int, chunks: Chunks) -> None:
    """Keep chunks of the attempt that runs, in the place of those with the same numbers: a worker may repeat itself."""
    values = {"job_id": job_id, "attempt": attempt, "first": chunks.first}
    total = _total_before(conn, job_id, chunks.first) + chunks.size_bytes
    _REPLACE.run(conn, values)
    content = b"[%b]" % b",".join(bytes(value) for value in chunks.values)
    _INSERT.run(conn, {**values, "content": content.decode(), "total_bytes": total})


def read(conn: Connection, job_id: str, attempt: int, first: int) -> Chunks:
    """The chunks of an attempt from the one with this number on, up to about `READ_BYTES`; none: there are no more."""
    found: list[msgspec.Raw] = []
    begin = first
    size_bytes = 0
    for start, content in _READ.all(conn, {"job_id": job_id, "attempt": attempt, "first": first}):
        values = _VALUES.decode(content)
        if not found:
            begin = max(start, first)
        found += values[max(first - start, 0) :]
        size_bytes += len(content)
        if size_bytes >= READ_BYTES:
            break
    return Chunks(begin, found)


def read_all(conn: Connection, job_id: str, attempt: int) -> list[msgspec.Raw]:
    """All chunks of an attempt so far."""
    found: list[msgspec.Raw] = []
    while (part := read(conn, job_id, attempt, len(found))).values:
        found += part.values
    return found


def remove_of_ended(conn: Connection, limit: int) -> int:
    """Remove rows of attempts that are over, `limit` at most; returns how many."""
    return _REMOVE.run(conn, {"limit": limit}).rowcount


def _total_before(conn: Connection, job_id: str, first: int) -> int:
    row: Any = _TOTAL.one(conn, {"job_id": job_id, "first": first})
    return 0 if row is None else row[0]


_TOTAL = Statement(
    "SELECT total_bytes FROM chunks WHERE job_id = :job_id AND attempt = "
    "(SELECT attempt FROM jobs WHERE id = :job_id) AND first < :first ORDER BY first DESC LIMIT 1"
)
_REPLACE = Statement("DELETE FROM chunks WHERE job_id = :job_id AND attempt = :attempt AND first >= :first")
_INSERT = Statement(
    "INSERT INTO chunks (job_id, attempt, first, content, total_bytes) "
    "VALUES (:job_id, :attempt, :first, :content, :total_bytes)"
)
# The row before the one asked for may hold what is asked for.
_READ = Statement(
    "SELECT first, content FROM chunks WHERE job_id = :job_id AND attempt = :attempt AND first >= coalesce((SELECT "
    "max(first) FROM chunks WHERE job_id = :job_id AND attempt = :attempt AND first <= :first), 0) "
    "ORDER BY first LIMIT 200"
)
_ENDED = (
    "SELECT c.job_id, c.attempt FROM chunks c LEFT JOIN jobs j ON j.id = c.job_id "
    f"WHERE j.id IS NULL OR j.state <> '{JobState.RUNNING}' OR j.attempt <> c.attempt LIMIT :limit"
)
_REMOVE = Statement(f"DELETE FROM chunks WHERE (job_id, attempt) IN ({_ENDED})")
