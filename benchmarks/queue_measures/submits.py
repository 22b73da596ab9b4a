"""Submits alone: how many a second are stored and acknowledged, from 32 connections that each wait for their answer."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from harness.errors import BenchmarkError
from harness.load import put_under_load
from harness.raw_http import post
from harness.report import Row, number, percentile
from harness.turns import in_turns
from queue_systems.base import DOCUMENT, Slots
from queue_systems.machineshop_http import Machineshop, deployment_of

CONNECTIONS = 32
BAR_PER_SECOND = 5000.0
WARM_UP_SECONDS = 0.3
# Nobody works on what is submitted: no worker runs in this measure.
MODEL = deployment_of(Slots.MANY)


@dataclass(frozen=True)
class Submits:
    """One turn.

    Args:
        per_second: how many were acknowledged.
        latency_ms: of each.
    """

    per_second: float
    latency_ms: list[float]

    def __str__(self) -> str:
        median, worst = (percentile(self.latency_ms, percent) for percent in (50, 99))
        return f"{number(self.per_second)} submits/s, answered after {median:.1f} ms (p99 {worst:.1f} ms)"


def measure(ours: Sequence[Machineshop], rounds: int, seconds: float) -> list[Row]:
    """The rows of all of ours; the first, on the embedded store, has the bar."""
    print(f"\nSubmits alone, {CONNECTIONS} connections:")
    results = in_turns(ours, rounds, lambda system: _turn(system, seconds), str)
    return [
        Row(
            name="submits",
            unit="1/s",
            better="higher",
            ours_name=system.name,
            ours=statistics.median(turn.per_second for turn in results[system.name]),
            bar=BAR_PER_SECOND if system is ours[0] else None,
        )
        for system in ours
    ]


def _turn(system: Machineshop, seconds: float) -> Submits:
    body = msgspec.json.encode({"model": MODEL, "payload": DOCUMENT})
    request = post("/v1/queue/submit", system.platform.api_key, body)
    deployment = f"/v1/deployments/{MODEL}"
    most_replicas = system.client.get(deployment)["max_replicas"]
    system.client.patch(deployment, {"max_replicas": 0})  # a job would wake one, which takes its part of the machine
    warm_up = put_under_load(system.platform.port, request, CONNECTIONS, WARM_UP_SECONDS)
    load = put_under_load(system.platform.port, request, CONNECTIONS, seconds)
    acknowledged = warm_up.answered + load.answered
    stored = system.client.post("/v1/queue/clear", {"model": MODEL})["canceled_count"]
    system.client.patch(deployment, {"max_replicas": most_replicas})
    if stored != acknowledged:
        raise BenchmarkError(f"{system.name}: {acknowledged} submits were acknowledged, and {stored} are stored.")
    return Submits(load.answered / load.seconds, load.latencies_ms)
