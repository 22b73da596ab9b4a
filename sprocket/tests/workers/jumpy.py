"""A model on a machine whose clock jumps: each look at it is a day away from the one before."""

from __future__ import annotations

import itertools
import time
from typing import Any

import sprocket

_now = time.time
_days = itertools.cycle([0, 1, -1, 2, -2])
time.time = lambda: _now() + next(_days) * 86_400


class Jumpy(sprocket.Sprocket):
    time_limit_seconds = 60

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        assert abs(time.time() - time.time()) > 80_000
        time.sleep(args["seconds"])
        return {}
