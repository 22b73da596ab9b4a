"""The worker that Machineshop runs."""

import time

import sprocket


class Stamp(sprocket.SprocketWorker):
    """Answers when its job started."""

    def predict(self, _request: sprocket.Request) -> dict[str, int]:
        """The start, in nanoseconds of CLOCK_MONOTONIC."""
        return {"started_ns": time.monotonic_ns()}
