"""A worker that only takes its time, for trying out what surrounds one: queues, progress, cancels and drains."""

import time

import sprocket

MAX_SECONDS = 3600
"""Long enough for any drill, and a mistyped job does not hold its replica for days."""

STEPS = 10
"""How often a job says how far it is."""

CANCEL_CHECK_SECONDS = 0.05
"""A cancel is noticed within this time; asking costs next to nothing."""


class Slow(sprocket.Sprocket):
    """Sleeps for as long as the job asks, and says how far it is."""

    def predict(self, args: dict) -> dict:
        """Turn `{"seconds": 5}` into `{"slept_seconds": 5}`, five seconds later.

        Args:
            args: `seconds`, a number from 0 to 3600; `fail`, true for a job that fails at its end (default false).

        Raises:
            ValueError: one of the two is not what it must be.
            RuntimeError: `fail` was asked for.
        """
        seconds, fail = read_seconds(args), read_fail(args)
        started_at = time.monotonic()
        for step in range(1, STEPS + 1):
            if not sleep_until(started_at + seconds * step / STEPS):
                return {}  # Cancelled: nobody sees this; the job ends as canceled.
            sprocket.emit_info({"progress": {"done": step, "total": STEPS}})
        if fail:
            raise RuntimeError('failed on purpose: the payload says "fail": true')
        return {"slept_seconds": seconds}


def read_seconds(args: dict) -> float:
    """Give the time to sleep."""
    seconds = args.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f'"seconds" must be a number from 0 to {MAX_SECONDS}, for example {{"seconds": 5}}')
    return seconds


def read_fail(args: dict) -> bool:
    """Tell whether the job is to fail at its end."""
    fail = args.get("fail", False)
    if fail not in (True, False):
        raise ValueError('"fail" must be true or false')
    return bool(fail)


def sleep_until(deadline: float) -> bool:
    """Sleep until the monotonic clock shows `deadline`; False, at once, when the job is cancelled."""
    while not sprocket.cancelled():
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            return True
        time.sleep(min(left_seconds, CANCEL_CHECK_SECONDS))
    return False
