"""One large answer: how fast it comes through, and how much memory that takes."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gateway_systems.base import LARGE, Gateway
from harness.errors import BenchmarkError
from harness.memory import resident_mib
from harness.raw_http import HEAD_END, OK, get
from harness.report import Row, percentile
from harness.turns import in_turns

BAR = 0.5
MIB = 1024 * 1024
BUFFER_BYTES = MIB
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Turn:
    """How fast, and how much the gateway's memory grew."""

    mib_per_second: float
    grown_mib: float


def measure(direct: Gateway, ours: Gateway, peers: Sequence[Gateway], rounds: int, size_mib: int) -> list[Row]:
    """Each of them in turn; the peer whose rate is the bar stands first."""
    print(f"\nOne answer of {size_mib} MiB:")
    results = in_turns([direct, ours, *peers], rounds, lambda system: _turn(system, size_mib), _shown)

    def median(system: Gateway, of: str) -> float:
        return percentile([getattr(turn, of) for turn in results[system.name]], 50)

    rows = []
    for peer in peers:
        bar = BAR if peer is peers[0] else None
        rate = [median(system, "mib_per_second") for system in (ours, peer)]
        rows.append(Row("stream", "MiB/s", "higher", ours.name, rate[0], peer.name, rate[1], bar))
    rows.append(Row("stream_memory_grown", "MiB", "lower", ours.name, median(ours, "grown_mib")))
    return rows


def _turn(system: Gateway, size_mib: int) -> Turn:
    before = _memory(system)
    seconds = _download(system, size_mib * MIB)
    return Turn(size_mib / seconds, max(0.0, _memory(system) - before))


def _memory(system: Gateway) -> float:
    return resident_mib(system.processes) if system.processes else 0.0


def _download(system: Gateway, size_bytes: int) -> float:
    """How long it takes from the request to the last byte; the reader keeps nothing."""
    access = system.access
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with socket.create_connection(("127.0.0.1", access.port), timeout=LIMIT_SECONDS) as connection:
        began = time.monotonic()
        connection.sendall(get(access.prefix + LARGE, access.key))
        received = b""
        while HEAD_END not in received:
            received += connection.recv(4096)
        head, _, body = received.partition(HEAD_END)
        if not head.startswith(OK):
            raise BenchmarkError(f"{system.name}: {head.decode(errors='replace')[:500]}")
        left = size_bytes - len(body)
        while left > 0:
            taken = connection.recv_into(buffer)
            if taken == 0:
                raise BenchmarkError(f"{system.name} hung up with {left} bytes to come.")
            left -= taken
        return time.monotonic() - began


def _shown(turn: Turn) -> str:
    return f"{turn.mib_per_second:6.0f} MiB/s   {turn.grown_mib:4.0f} MiB more memory"
