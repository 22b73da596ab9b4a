# ruff: noqa: A005 - it is no module that anybody imports, and steps aside for the one of that name, just below
"""The queue beside its peers: end to end, one by one, submits, submit to start, a long backlog, a thousand workers.

Machineshop on SQLite and on Postgres stands beside Celery, Dramatiq, arq and Huey on Redis and Procrastinate on
Postgres, each with one worker process in the fastest set-up that its documentation offers. Everything is started here.
"""

import sys

# The folder of this file holds `queue.py`, and the standard library's module of that name must come first.
sys.path.append(sys.path.pop(0))

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.command import main
from harness.machine import describe
from harness.postgres_server import PostgresServer
from harness.redis_server import RedisServer
from harness.report import Row, rows_table
from queue_measures import backlog, dispatch, polls, submits, throughput
from queue_systems.arq_redis import ArqOnRedis
from queue_systems.base import System
from queue_systems.celery_redis import CeleryRedis
from queue_systems.dramatiq_redis import DramatiqRedis
from queue_systems.huey_redis import HueyRedis
from queue_systems.machineshop_http import ByLibrary, Machineshop
from queue_systems.procrastinate_postgres import ProcrastinatePostgres

PACKAGES = ["celery", "dramatiq", "arq", "huey", "redis", "procrastinate", "psycopg", "machineshop"]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        rounds: turns of each system.
        seconds: of a turn, about.
        dispatched: jobs of a turn, where they come one after another.
        backlog: pending jobs of the long queue.
        claims: from each queue.
        polls: workers that wait at once.
    """

    rounds: int
    seconds: float
    dispatched: int
    backlog: int
    claims: int
    polls: int


FULL = Scale(rounds=3, seconds=3.0, dispatched=150, backlog=1_000_000, claims=300, polls=1000)
# To see that everything runs: the numbers of so little say nothing.
QUICK = Scale(rounds=1, seconds=0.5, dispatched=20, backlog=10_000, claims=50, polls=100)


@dataclass(frozen=True)
class Field:
    """Everybody who is measured."""

    ours: list[Machineshop]
    celery: CeleryRedis
    dramatiq: DramatiqRedis
    arq: ArqOnRedis
    huey: HueyRedis
    procrastinate: ProcrastinatePostgres

    @property
    def peers(self) -> list[System]:
        """The others."""
        return [self.celery, self.dramatiq, self.arq, self.huey, self.procrastinate]


MEASURES: dict[str, Callable[[Field, Scale], list[Row]]] = {
    "batched": lambda on, scale: throughput.measure_batched(on.ours, on.peers, scale.rounds, scale.seconds),
    "singly": lambda on, scale: throughput.measure_singly(on.ours, on.procrastinate, scale.rounds, scale.seconds),
    "submits": lambda on, scale: submits.measure(on.ours, scale.rounds, scale.seconds),
    "dispatch": lambda on, scale: dispatch.measure(
        [*on.ours, ByLibrary(on.ours[0])], [on.celery, on.huey], scale.rounds, scale.dispatched
    ),
    "polls": lambda on, scale: polls.measure(on.ours, scale.polls),
    "backlog": lambda on, scale: backlog.measure(on.ours, scale.backlog, scale.claims),
}


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


def run(scale: Scale, measures: Sequence[str]) -> list[Row]:
    with ExitStack() as cleanup:
        # Others may enter it: Postgres runs as somebody else where this runs as root.
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="queue-benchmark-")))
        folder.chmod(0o755)
        print(describe(PACKAGES, folder), flush=True)
        field = bring_up(folder, cleanup)
        rows = [row for name in measures for row in MEASURES[name](field, scale)]
    print(f"\nMedians of {scale.rounds} rounds, ours / peer:\n{rows_table(rows)}")
    return rows


def bring_up(folder: Path, cleanup: ExitStack) -> Field:
    """All servers, ended by `cleanup`; the workers come and go with their turns."""

    def redis(name: str) -> RedisServer:
        server = RedisServer(folder, name)
        cleanup.callback(server.stop)
        return server

    def postgres(name: str) -> PostgresServer:
        server = PostgresServer(folder, name)
        cleanup.callback(server.stop)
        return server

    ours = []
    for store in (None, postgres("machineshop-store")):
        ours.append(machineshop := Machineshop(folder, store))
        cleanup.callback(machineshop.take_down)
        machineshop.bring_up()
    field = Field(
        ours=ours,
        celery=CeleryRedis(folder, redis("celery-redis")),
        dramatiq=DramatiqRedis(folder, redis("dramatiq-redis")),
        arq=ArqOnRedis(folder, redis("arq-redis")),
        huey=HueyRedis(folder, redis("huey-redis")),
        procrastinate=ProcrastinatePostgres(folder, postgres("procrastinate-postgres")),
    )
    print("Set-up, and what holds once a submit is acknowledged:")
    for system in [*field.ours, *field.peers]:
        print(f"  {system.name}: {system.set_up}\n    acknowledged: {system.guarantee}")
    return field


if __name__ == "__main__":
    sys.exit(main("queue", __doc__, MEASURES, FULL.rounds, scale_of, run))
