"""What a claim costs when a million jobs wait, beside what it costs when a thousand do.

Two queues lie in one database, and take turns: each claim is a worker's request over HTTP, one job at a time.
"""

import sqlite3
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlencode

import psycopg

from harness.errors import BenchmarkError
from harness.report import Row, percentile
from queue_systems.base import DOCUMENT, Slots
from queue_systems.machineshop_http import Machineshop, deployment_of

BAR = 1.3
SHORT = 1000
WARM_UP_CLAIMS = 30
# So much is added in one transaction: the server must not wait for its turn longer than it is patient.
PIECE = 100_000
BUSY_LIMIT_SECONDS = 30.0
CLAIM_SECONDS = 3600

Statements = Sequence[str]


def measure(ours: Sequence[Machineshop], pending: int, claims: int) -> list[Row]:
    """The long queue's median beside the short one's, on each store; both have the bar.

    Args:
        ours: one for each store.
        pending: jobs of the long queue.
        claims: from each queue.
    """
    print(f"\nA claim when {pending:,} jobs are pending, and when {SHORT:,} are (GET /internal/v1/queue/retrieve):")
    return [_measure(system, pending, claims) for system in ours]


def _measure(system: Machineshop, pending: int, claims: int) -> Row:
    began = time.monotonic()
    _fill(system, "backlog-long", pending)
    _fill(system, "backlog-short", SHORT + WARM_UP_CLAIMS + claims)
    filled = time.monotonic() - began
    taken_ms: dict[str, list[float]] = {"backlog-long": [], "backlog-short": []}
    for _ in range(WARM_UP_CLAIMS + claims):
        for name, values in taken_ms.items():
            values.append(_claim_ms(system, name))
    long, short = (values[WARM_UP_CLAIMS:] for values in taken_ms.values())
    for name, values in (("long", long), ("short", short)):
        p50, p99 = percentile(values, 50), percentile(values, 99)
        print(f"  {system.name}  {name:5}  {p50:.2f} ms (p99 {p99:.2f} ms)")
    print(f"  {system.name}  filled in {filled:.0f} s", flush=True)
    return Row(
        name="claim",
        unit="ms",
        better="lower",
        ours_name=system.name,
        ours=statistics.median(long),
        peer_name=f"{SHORT:,} pending",
        peer=statistics.median(short),
        bar=BAR,
    )


def _claim_ms(system: Machineshop, name: str) -> float:
    wish = {"model": name, "hostname": "backlog", "timeout": "0s", "claim_timeout": CLAIM_SECONDS}
    path = f"/internal/v1/queue/retrieve?{urlencode(wish)}"
    began = time.perf_counter()
    answer = system.client.get(path)
    taken = time.perf_counter() - began
    if answer["data"] is None:
        raise BenchmarkError(f"{system.name}: {name} has no job left.")
    return taken * 1e3


def _fill(system: Machineshop, name: str, pending: int) -> None:
    """Make a deployment without a worker, submit one job, and copy it in the database.

    Submitting a million would take minutes. What they leave behind is the same: their rows, and their number in the
    counts of the queue and of its line, which the last look checks.
    """
    system.platform.copy_deployment(deployment_of(Slots.ONE), name)
    system.client.post("/v1/queue/submit", {"model": name, "payload": DOCUMENT})
    if system.database_url is None:
        _fill_sqlite(system, name, pending - 1)
    else:
        _fill_postgres(system.database_url, name, pending - 1)
    waiting = system.client.get(f"/v1/queue/metrics?{urlencode({'model': name})}")["messages_waiting"]
    if waiting != pending:
        raise BenchmarkError(f"{system.name}: {name} has {waiting} jobs, not {pending}.")


def _fill_sqlite(system: Machineshop, name: str, number: int) -> None:
    path = system.platform.data / "machineshop.db"
    with closing(sqlite3.connect(path, timeout=BUSY_LIMIT_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
        for first in range(0, number, PIECE):
            connection.execute("BEGIN IMMEDIATE")
            for statement in _copies(columns, name, first, min(PIECE, number - first)):
                connection.execute(statement)
            connection.execute("COMMIT")


def _fill_postgres(url: str, name: str, number: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs'")
        columns = [row[0] for row in found]
        for first in range(0, number, PIECE):
            with connection.transaction():
                for statement in _copies(columns, name, first, min(PIECE, number - first)):
                    connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE jobs")  # as its own housekeeping does soon after so many rows


def _copies(columns: Sequence[str], name: str, first: int, number: int) -> Statements:
    """Copies of the queue's first job under ids of their own, and their number in the counts."""
    copied = [column for column in columns if column not in {"sequence", "id"}]
    deployment = f"(SELECT id FROM deployments WHERE name = '{name}' AND deleted_at IS NULL)"
    return [
        f"WITH RECURSIVE numbers (n) AS (SELECT {first + 1} UNION ALL SELECT n + 1 FROM numbers "
        f"WHERE n < {first + number}), "
        f"first AS (SELECT * FROM jobs WHERE deployment_id = {deployment} ORDER BY sequence LIMIT 1) "
        f"INSERT INTO jobs (id, {', '.join(copied)}) "
        # Eight digits of its own in the place of the last ones.
        f"SELECT substr(id, 1, 28) || substr(CAST(100000000 + n AS text), 2), {', '.join(copied)} "
        "FROM first CROSS JOIN numbers",
        f"UPDATE lines SET pending = pending + {number} WHERE deployment_id = {deployment}",
        f"UPDATE queues SET pending = pending + {number} WHERE deployment_id = {deployment}",
    ]
