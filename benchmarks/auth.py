"""What it adds to a request to find out whose key it carries: in process, with nothing between caller and handler.

The same route answers the same request twice by turns: once as the platform does it, once with an identity that is
there already. The key is looked up in the store again and again meanwhile, as on a server that is in use.
"""

import sys

# The folder of this file holds `queue.py`, and the standard library's module of that name must come first.
sys.path.append(sys.path.pop(0))

import statistics
import tempfile
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop
from starlette.responses import Response
from starlette.types import ASGIApp

from harness.command import main
from harness.machine import describe
from harness.report import Row, rows_table
from machineshop.api.endpoint import Api, Call
from machineshop.http import json_response
from machineshop.models import Identity
from machineshop.services.identity import CACHE_SECONDS, IdentityService
from machineshop.store.database import Database, sqlite_url
from machineshop.store.schema import migrate

KEY = "an-admin-key-for-a-benchmark"
MEASURES = ["added"]
MAX_ADDED_MILLISECONDS = 0.1


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        rounds: turns of each way.
        requests: in each turn.
    """

    rounds: int
    requests: int


FULL = Scale(rounds=5, requests=50_000)
# To see that everything runs: the numbers of so little say nothing.
QUICK = Scale(rounds=1, requests=2_000)


class Known(IdentityService):
    """Knows who asks without looking."""

    def __init__(self, database: Database, identity: Identity) -> None:
        super().__init__(database)
        self._known = identity

    async def authenticate(self, key: str | None, address: str | None = None) -> Identity:  # noqa: ARG002 - not asked
        """Whoever it is."""
        return self._known


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


def run(scale: Scale, _measures: Sequence[str]) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="auth-benchmark-") as folder:
        print(describe(["machineshop", "starlette", "uvloop"], Path(folder)), flush=True)
        rows = uvloop.run(measure(scale, Path(folder)))
    print(f"\nMedians of {scale.rounds} rounds:\n{rows_table(rows)}")
    return rows


async def measure(scale: Scale, folder: Path) -> list[Row]:
    url = sqlite_url(folder / "machineshop.db")
    migrate(url)
    database = Database(url)
    database.start()
    try:
        identity = IdentityService(database)
        known = Known(database, await identity.ensure_admin(KEY))
        asked, told = route(identity), route(known)
        for way in (asked, told):
            await milliseconds(way, scale.requests // 10)  # the first ones load what later ones have
        p50s: list[tuple[float, float]] = []
        p99s: list[tuple[float, float]] = []
        lookups: list[float] = []
        for number in range(scale.rounds):
            ways = [asked, told] if number % 2 == 0 else [told, asked]
            took = {way: await milliseconds(way, scale.requests) for way in ways}
            p50s.append((statistics.median(took[asked]), statistics.median(took[told])))
            p99s.append((statistics.quantiles(took[asked], n=100)[98], statistics.quantiles(took[told], n=100)[98]))
            with_key, without = p50s[-1]
            lookups.append(statistics.median(await looked_up(database, scale.requests // 100)))
            print(f"round {number + 1}: p50 {with_key * 1000:.1f} us with the key, {without * 1000:.1f} us without")
    finally:
        database.close()
    return [
        row("added_p50", statistics.median(one - other for one, other in p50s), MAX_ADDED_MILLISECONDS),
        Row("lookup_p50", "ms", "lower", "not known yet", statistics.median(lookups)),
        row("added_p99", statistics.median(one - other for one, other in p99s)),
        Row(
            "request_p50",
            "ms",
            "lower",
            "with its key",
            statistics.median(one for one, _ in p50s),
            "without",
            statistics.median(other for _, other in p50s),
        ),
    ]


def row(name: str, milliseconds_added: float, bar: float | None = None) -> Row:
    return Row(name, "ms", "lower", f"looked up every {CACHE_SECONDS:g} s", milliseconds_added, bar=bar)


def route(identity: IdentityService) -> ASGIApp:
    async def answer(_call: Call) -> Response:
        return json_response({})

    return Api(identity).route("GET", "/", answer).app


async def looked_up(database: Database, times: int) -> list[float]:
    """How long it takes to find a key in the store, which a key in use waits for once in `CACHE_SECONDS`."""
    took = []
    for _ in range(times):
        identity = IdentityService(database)  # it knows nobody yet
        began = time.perf_counter()
        await identity.authenticate(KEY, "127.0.0.1")
        took.append((time.perf_counter() - began) * 1000)
    return took


async def milliseconds(app: ASGIApp, requests: int) -> list[float]:
    """How long each request took."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {KEY}".encode())],
        "client": ("127.0.0.1", 1),
    }
    took = []
    for _ in range(requests):
        began = time.perf_counter()
        await app({**scope}, receive, send)
        took.append((time.perf_counter() - began) * 1000)
    return took


async def receive() -> MutableMapping[str, Any]:
    return {"type": "http.disconnect"}


async def send(message: MutableMapping[str, Any]) -> None:
    assert message.get("status", 200) == 200, message


if __name__ == "__main__":
    sys.exit(main("auth", __doc__, MEASURES, FULL.rounds, scale_of, run))
