"""The worker side of arq: one function and the worker's settings. Its Redis is named by the environment."""

import os
import time
from typing import Any

from arq.connections import RedisSettings


async def echo(_context: dict[str, Any], document: dict[str, str]) -> dict[str, object]:
    """What came in, and when this job started, in nanoseconds of CLOCK_MONOTONIC."""
    return {"started_ns": time.monotonic_ns(), **document}


class WorkerSettings:
    """As the command `arq` reads them; twenty slots and five hundred were slower, and so were shorter polls."""

    functions = (echo,)
    redis_settings = RedisSettings.from_dsn(os.environ["QUEUE_URL"])
    max_jobs = int(os.environ.get("QUEUE_SLOTS", "100"))
    queue_read_limit = max_jobs
    poll_delay = 0.01
    keep_result = 600
    log_results = False
