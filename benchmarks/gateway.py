"""The gateway beside nginx and a plain aiohttp proxy: small requests, one large answer, and the memory.

All of them forward to the same replica, which is another nginx. Ours authenticates each request and picks a replica for
it; the others do neither.
"""

import sys

# The folder of this file holds `queue.py`, and the standard library's module of that name must come first.
sys.path.append(sys.path.pop(0))

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from gateway_measures import requests, stream
from gateway_systems.aiohttp_proxy import AiohttpProxy
from gateway_systems.base import Direct
from gateway_systems.machineshop_gateway import MachineshopGateway
from gateway_systems.nginx_proxy import Nginx
from harness.command import main
from harness.machine import describe
from harness.report import Row, rows_table

MEASURES = ["requests", "stream"]
MIB = 1024 * 1024


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        rounds: turns of each gateway.
        seconds: of small requests in each turn.
        large_mib: of the one large answer.
    """

    rounds: int
    seconds: float
    large_mib: int


FULL = Scale(rounds=3, seconds=5.0, large_mib=1024)
# To see that everything runs: the numbers of so little say nothing.
QUICK = Scale(rounds=1, seconds=0.5, large_mib=64)


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


def run(scale: Scale, measures: Sequence[str]) -> list[Row]:
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="gateway-benchmark-")))
        print(describe(["machineshop", "uvicorn", "uvloop", "httptools", "aiohttp"], folder), flush=True)
        large = folder / "large.bin"
        with large.open("wb") as file:
            file.truncate(scale.large_mib * MIB)
        ours = MachineshopGateway(folder, large)
        cleanup.callback(ours.take_down)
        replica = ours.replica_port()
        nginx = Nginx(folder, replica)
        cleanup.callback(nginx.take_down)
        aiohttp = AiohttpProxy(folder, replica)
        cleanup.callback(aiohttp.take_down)
        direct, peers = Direct(replica), (nginx, aiohttp)
        rows: list[Row] = []
        if "requests" in measures:
            rows += requests.measure(direct, ours, peers, scale.rounds, scale.seconds)
        if "stream" in measures:
            rows += stream.measure(direct, ours, peers, scale.rounds, scale.large_mib)
    print(f"\nMedians of {scale.rounds} rounds, ours / peer:\n{rows_table(rows)}")
    return rows


if __name__ == "__main__":
    sys.exit(main("gateway", __doc__, MEASURES, FULL.rounds, scale_of, run))
