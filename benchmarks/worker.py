"""The worker: what a job costs beside calling predict in a loop, and beside the workers of arq and Celery; dispatch.

Everything is started here. The jobs do nothing: what is measured is what a worker adds to its model.
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
from harness.redis_server import RedisServer
from harness.report import Row, rows_table
from queue_systems.arq_redis import ArqOnRedis
from queue_systems.base import Slots, System
from queue_systems.celery_redis import CeleryRedis
from queue_systems.machineshop_http import Machineshop
from worker_measures import cost, dispatch
from worker_measures.files import measure_files

PACKAGES = ["celery", "arq", "redis", "sprocket", "aiohttp", "machineshop"]
AT_ONCE = 16


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        rounds: turns of each system.
        seconds: of a turn, about.
        dispatched: jobs of a turn, where they come one after another.
        file_mib: the size of a large file.
    """

    rounds: int
    seconds: float
    dispatched: int
    file_mib: int


FULL = Scale(rounds=3, seconds=3.0, dispatched=150, file_mib=2048)
# To see that everything runs: the numbers of so little say nothing.
QUICK = Scale(rounds=1, seconds=0.5, dispatched=20, file_mib=128)


@dataclass(frozen=True)
class Field:
    """Everybody who is measured.

    Args:
        thread: our worker with the model in a thread; with many slots it has `AT_ONCE`.
        process: the same with one job at a time and the model in a process of its own.
        singly: the peers with one job at a time.
        at_once: the peers with `AT_ONCE` jobs at a time.
        files: an empty folder for a measure that has a server of its own.
    """

    thread: Machineshop
    process: Machineshop
    singly: list[System]
    at_once: list[System]
    files: Path


MEASURES: dict[str, Callable[[Field, Scale], list[Row]]] = {
    "one": lambda on, scale: cost.measure(
        [on.thread, on.process], on.singly, "one_by_one", Slots.ONE, scale.rounds, scale.seconds
    ),
    "sixteen": lambda on, scale: cost.measure(
        [on.thread], on.at_once, "sixteen_at_once", Slots.MANY, scale.rounds, scale.seconds
    ),
    "dispatch": lambda on, scale: dispatch.measure(on.thread, on.process, scale.rounds, scale.dispatched),
    "files": lambda on, scale: measure_files(on.files, scale.file_mib, scale.rounds),
}


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


def run(scale: Scale, measures: Sequence[str]) -> list[Row]:
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="worker-benchmark-")))
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

    def machineshop(name: str, classes: dict[Slots, str]) -> Machineshop:
        system = Machineshop(folder, name=name, classes=classes)
        cleanup.callback(system.take_down)
        system.bring_up()
        return system

    arq, celery = redis("arq-redis"), redis("celery-redis")
    (folder / "files").mkdir()
    field = Field(
        thread=machineshop("sprocket", {Slots.ONE: "One", Slots.MANY: "Sixteen"}),
        process=machineshop("sprocket-process", {Slots.ONE: "OneInProcess"}),
        singly=[ArqOnRedis(folder, arq, slots=1), CeleryRedis(folder, celery)],
        at_once=[ArqOnRedis(folder, arq, slots=AT_ONCE), CeleryRedis(folder, celery, threads=AT_ONCE)],
        files=folder / "files",
    )
    print("Set-up of the peers:")
    for system in [*field.singly, *field.at_once]:
        print(f"  {system.name}: {system.set_up}")
    return field


if __name__ == "__main__":
    sys.exit(main("worker", __doc__, MEASURES, FULL.rounds, scale_of, run))
