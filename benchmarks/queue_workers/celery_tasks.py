"""The worker and client side of Celery: one app with one task. Its broker is named by the environment."""

import os
import time

from celery import Celery

# Jobs that a worker fetches ahead for each slot: Celery's default of 4 was as fast as 64, and 1 is slower.
PREFETCH = 4

app = Celery("queue_benchmark", broker=os.environ["QUEUE_URL"], backend=os.environ["QUEUE_URL"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=PREFETCH,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    result_expires=600,
)


@app.task(name="echo")  # type: ignore[untyped-decorator]
def echo(document: dict[str, str]) -> dict[str, object]:
    """What came in, and when this job started, in nanoseconds of CLOCK_MONOTONIC."""
    return {"started_ns": time.monotonic_ns(), **document}
