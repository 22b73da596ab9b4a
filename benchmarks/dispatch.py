"""How long an idle worker waits for its job: from the client's submit call to the start of predict.

Machineshop stands beside Celery and RQ on Redis, each with one worker and in its fastest documented set-up. One job at
a time; the systems take turns within each round, and the numbers compared are medians over the rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dispatch_systems.base import System, Timing
from dispatch_systems.celery_redis import CeleryRedis
from dispatch_systems.machineshop_http import MachineshopHttp
from dispatch_systems.rq_redis import RqRedis
from harness.errors import BenchmarkError
from harness.processes import interrupt_on_signals
from harness.redis_server import RedisServer
from harness.report import Row, percentile, ratio_table, table, write_json

START_P50_BAR = 0.8
WARM_UP_JOBS = 20


@dataclass(frozen=True)
class Pace:
    """How jobs follow one another.

    Args:
        name: how the tables call it.
        gap_seconds: the pause between a result and the next submit.
        suffix: what it adds to the names of the rows.
    """

    name: str
    gap_seconds: float
    suffix: str


# Idle is what the bar is about: every process has gone to sleep before the job comes, as in real use with a single
# user. Without the gap, caches and cores stay warm and every system is two to three times as fast: reported, no bar.
IDLE = Pace("idle", 0.02, "")
BUSY = Pace("back to back", 0.0, "_back_to_back")

MEASURES: dict[str, Callable[[Timing], float]] = {
    "start": lambda timing: timing.start_ms,
    "acknowledged": lambda timing: timing.acknowledge_ms,
    "result": lambda timing: timing.result_ms,
}

REPORTED = [
    (IDLE, "start", 50),
    (IDLE, "start", 99),
    (IDLE, "acknowledged", 50),
    (IDLE, "result", 50),
    (IDLE, "result", 99),
    (BUSY, "start", 50),
    (BUSY, "result", 50),
]


@dataclass
class Samples:
    """Every timing of one system at one pace, a list for each round."""

    rounds: list[list[Timing]] = field(default_factory=list)

    def median(self, measure: str, percent: float) -> float:
        """The median over the rounds of one round's percentile, in ms."""
        return statistics.median(percentile(values, percent) for values in self._values(measure))

    def _values(self, measure: str) -> list[list[float]]:
        return [[MEASURES[measure](timing) for timing in timings] for timings in self.rounds]


Results = dict[tuple[str, str], Samples]


def main() -> int:
    options = read_options()
    interrupt_on_signals()
    try:
        rows = run(options)
    except BenchmarkError as error:
        print(f"dispatch: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dispatch: interrupted; everything that it started has been stopped", file=sys.stderr)
        return 130
    if options.json:
        write_json(options.json, rows)
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows there as well")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which each system has its turn (%(default)s)")
    parser.add_argument("--jobs", type=int, default=200, help="jobs of a system in a round, at each pace (%(default)s)")
    return parser.parse_args()


def run(options: argparse.Namespace) -> list[Row]:
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="dispatch-")))
        systems = start_systems(folder, cleanup)
        results = measure(systems, options.rounds, options.jobs)
    rows = compare(results, ours=systems[0].name, peers=[system.name for system in systems[1:]])
    print(f"\nMedians of {options.rounds} rounds, ours / peer:\n{ratio_table(rows)}")
    return rows


def start_systems(folder: Path, cleanup: ExitStack) -> list[System]:
    """All systems, ours first, each with a worker that has answered one job; ended by `cleanup`."""
    redis = RedisServer(folder)
    cleanup.callback(redis.stop)
    systems: list[System] = [
        MachineshopHttp(folder),
        CeleryRedis(folder, redis.url(database=0)),
        RqRedis(folder, redis.url(database=1)),
    ]
    print("Set-up, and what holds once a submit is acknowledged:")
    for system in systems:
        cleanup.callback(system.stop)
        system.start()
        print(f"  {system.name}: {system.set_up}\n    acknowledged: {system.guarantee}")
    return systems


def measure(systems: Sequence[System], rounds: int, jobs: int) -> Results:
    """Run all rounds, printing each system's turn as it ends."""
    results: Results = {}
    print(f"\nms from submit, p50 / p99 of {jobs} jobs:")
    for number in range(rounds):
        for system in rotated(systems, number):
            for pace in (IDLE, BUSY):
                timings = take_turn(system, pace, jobs)
                results.setdefault((system.name, pace.name), Samples()).rounds.append(timings)
        print(round_table(number, systems, results), flush=True)
    return results


def rotated(systems: Sequence[System], number: int) -> list[System]:
    """The order of one round: every system is first once, so that none always follows the same neighbour."""
    start = number % len(systems)
    return [*systems[start:], *systems[:start]]


def take_turn(system: System, pace: Pace, jobs: int) -> list[Timing]:
    timings = []
    for _ in range(WARM_UP_JOBS + jobs):
        time.sleep(pace.gap_seconds)
        timings.append(system.run_job())
    return timings[WARM_UP_JOBS:]


def round_table(number: int, systems: Sequence[System], results: Results) -> str:
    lines = [[f"round {number + 1}", "pace", *MEASURES]]
    for pace in (IDLE, BUSY):
        for system in systems:
            timings = results[system.name, pace.name].rounds[number]
            lines.append([system.name, pace.name, *(spread(timings, measure) for measure in MEASURES)])
    return table(lines)


def spread(timings: Sequence[Timing], measure: str) -> str:
    values = [MEASURES[measure](timing) for timing in timings]
    return f"{percentile(values, 50):.2f} / {percentile(values, 99):.2f}"


def compare(results: Results, ours: str, peers: Sequence[str]) -> list[Row]:
    """The rows of the report; only the idle start's p50 beside Celery's has a bar."""
    rows = []
    for pace, measure, percent in REPORTED:
        for peer in peers:
            barred = (pace, measure, percent, peer) == (IDLE, "start", 50, CeleryRedis.name)
            rows.append(
                Row(
                    name=f"dispatch_{measure}_p{percent}{pace.suffix}",
                    unit="ms",
                    better="lower",
                    ours=results[ours, pace.name].median(measure, percent),
                    peer_name=peer,
                    peer=results[peer, pace.name].median(measure, percent),
                    bar=START_P50_BAR if barred else None,
                )
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
