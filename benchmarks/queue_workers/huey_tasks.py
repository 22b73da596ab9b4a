"""The worker and client side of Huey: one instance with one task. Its Redis is named by the environment."""

import os
import time

from huey import RedisHuey

huey = RedisHuey("queue_benchmark", url=os.environ["QUEUE_URL"])


@huey.task()  # type: ignore[untyped-decorator]
def echo(document: dict[str, str]) -> dict[str, object]:
    """What came in, and when this job started, in nanoseconds of CLOCK_MONOTONIC."""
    return {"started_ns": time.monotonic_ns(), **document}
