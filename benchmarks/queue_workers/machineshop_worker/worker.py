"""The workers that Machineshop runs."""

import time
from typing import Any

import sprocket


class Many(sprocket.AsyncSprocket):
    """Has many jobs in hand at once, so that they are claimed and reported in batches."""

    concurrency = 500

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        """What came in, and when this job started, in nanoseconds of CLOCK_MONOTONIC."""
        return {"started_ns": time.monotonic_ns(), **args}


class One(sprocket.Sprocket):
    """Works on one job at a time, as workers do unless they say otherwise."""

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        """The same."""
        return {"started_ns": time.monotonic_ns(), **args}


class OneInProcess(One):
    """The same, with the model in a process of its own."""

    process = True


class Sixteen(Many):
    """A usual number of jobs at once."""

    concurrency = 16
