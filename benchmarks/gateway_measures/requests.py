"""Small requests on 32 connections: how many a second, and how much longer each takes than without a gateway."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway_systems.base import SMALL, Gateway
from harness.cpu import cpu_seconds
from harness.load import put_under_load
from harness.memory import resident_mib
from harness.raw_http import get
from harness.report import Row, percentile
from harness.turns import in_turns

CONNECTIONS = 32
WARM_UP_SECONDS = 0.5
BAR = 1.0


@dataclass(frozen=True)
class Turn:
    """Requests a second, how long one took, and the gateway's memory at the end."""

    per_second: float
    p50_ms: float
    p99_ms: float
    memory_mib: float
    cpu_us: float
    """Processor time of the gateway for each request: what a busy machine changes least."""


def measure(direct: Gateway, ours: Gateway, peers: Sequence[Gateway], rounds: int, seconds: float) -> list[Row]:
    """Each of them in turn; the peer whose rate is the bar stands last."""
    print(f"\nGETs of a few bytes on {CONNECTIONS} connections:")
    systems = [direct, ours, *peers]
    results = in_turns(systems, rounds, lambda system: _turn(system, seconds), _shown)

    def median(system: Gateway, of: str) -> float:
        return percentile([getattr(turn, of) for turn in results[system.name]], 50)

    def added(system: Gateway, of: str) -> float:
        return max(0.0, median(system, of) - median(direct, of))

    rows = []
    for peer in peers:
        bar = BAR if peer is peers[-1] else None
        values = [median(system, "per_second") for system in (ours, peer)]
        rows.append(Row("requests", "1/s", "higher", ours.name, values[0], peer.name, values[1], bar))
    for peer in peers:
        values = [median(system, "cpu_us") for system in (ours, peer)]
        rows.append(Row("cpu", "us/request", "lower", ours.name, values[0], peer.name, values[1]))
    for peer in peers:
        for name, of in (("added_p50", "p50_ms"), ("added_p99", "p99_ms")):
            rows.append(Row(name, "ms", "lower", ours.name, added(ours, of), peer.name, added(peer, of)))
    for peer in peers:
        values = [median(system, "memory_mib") for system in (ours, peer)]
        rows.append(Row("memory", "MiB", "lower", ours.name, values[0], peer.name, values[1]))
    return rows


def _turn(system: Gateway, seconds: float) -> Turn:
    access = system.access
    request = get(access.prefix + SMALL, access.key)
    put_under_load(access.port, request, CONNECTIONS, WARM_UP_SECONDS)
    before = cpu_seconds(system.processes)
    load = put_under_load(access.port, request, CONNECTIONS, seconds)
    used = cpu_seconds(system.processes) - before
    latencies = load.latencies_ms
    memory = resident_mib(system.processes) if system.processes else 0.0
    return Turn(
        load.answered / seconds,
        percentile(latencies, 50),
        percentile(latencies, 99),
        memory,
        used / load.answered * 1e6,
    )


def _shown(turn: Turn) -> str:
    latency = f"p50 {turn.p50_ms:6.2f} ms   p99 {turn.p99_ms:6.2f} ms"
    return f"{turn.per_second:7,.0f}/s   {latency}   {turn.cpu_us:4.0f} us of CPU   {turn.memory_mib:4.0f} MiB"
