"""The worker and client side of Celery: one app with one task. Its broker is named by the environment."""

import os
import time

from celery import Celery

app = Celery("dispatch", broker=os.environ["DISPATCH_REDIS_URL"], backend=os.environ["DISPATCH_REDIS_URL"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    result_expires=600,
)


@app.task(name="dispatch.stamp")  # type: ignore[untyped-decorator]
def stamp(_sent: dict[str, object]) -> int:
    """When this job started, in nanoseconds of CLOCK_MONOTONIC."""
    return time.monotonic_ns()
