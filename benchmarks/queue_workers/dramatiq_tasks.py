"""The worker and client side of Dramatiq: one broker with results, one actor. Its Redis is named by the environment."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=os.environ["QUEUE_URL"])  # type: ignore[no-untyped-call]
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["QUEUE_URL"])))  # type: ignore[no-untyped-call]
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def echo(document: dict[str, str]) -> dict[str, object]:
    """What came in, and when this job started, in nanoseconds of CLOCK_MONOTONIC."""
    return {"started_ns": time.monotonic_ns(), **document}
