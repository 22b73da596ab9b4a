"""The warm-up: inputs of the model's own, which go through its predict at the end of setup, before any job does.

It runs where setup runs, so that what it compiles, caches or allocates is there for the predicts to come. What predict
returns is thrown away.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ConfigError
from .job import Job, active
from .logs import log
from .worker import Worker

JOB_ID = "warm-up"


def warmup_jobs(worker: Worker, rounds: int, *, required: bool) -> list[Job]:
    """Give what to run, in order; each job with a payload of its own, which predict may change.

    Args:
        worker: the instance, set up: its inputs may come from what setup has loaded.
        rounds: how often to run each input.
        required: having no inputs is a mistake.

    Raises:
        ConfigError: the worker's `warmup_inputs` are none.
    """
    name = f"{type(worker).__name__}.warmup_inputs"
    inputs: object = worker.warmup_inputs
    if not isinstance(inputs, (list, tuple)) or not all(isinstance(payload, dict) for payload in inputs):
        raise ConfigError(f"{name} must be a list of dicts, each a payload for predict, not {inputs!r:.200}")
    if required and not inputs:
        raise ConfigError(f"RUN_AND_EXIT runs the warm-up inputs, and {name} has none: add the payload of a job")
    return [Job(JOB_ID, copy.deepcopy(payload)) for _ in range(rounds) for payload in inputs]


@contextmanager
def warming_up(job: Job) -> Iterator[None]:
    """Make a job of the warm-up the current one for the time of a block, and log how it went."""
    started_at = time.monotonic()
    with active(job):
        try:
            yield
        except BaseException:
            log.error("predict failed for %.200r", job.payload)
            raise
        log.info("predict took %.2f s", time.monotonic() - started_at)
