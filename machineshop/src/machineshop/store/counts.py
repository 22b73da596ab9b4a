"""What has ended in a line or a queue, and how that moves the mean of how long jobs run."""

import msgspec

# How much the last job counts in a mean.
_WEIGHT_OF_LAST = 0.2

# SQL for `mean_seconds` with the values of `Count.mean_values` taken in.
MEAN = (
    "CASE WHEN :told = 0 THEN mean_seconds WHEN mean_seconds IS NULL THEN :fresh ELSE mean_seconds * :keep + :added END"
)


class Count(msgspec.Struct):
    """What ended in one line."""

    ended: int = 0
    """How many attempts, those whose jobs wait again among them."""
    back: int = 0
    """How many jobs wait again."""
    charge_seconds: float = 0.0
    """What is left to charge for them; below 0 where too much was."""
    surcharge_seconds: float = 0.0
    """The part of it for those that ran longer than they were charged for."""
    ran_seconds: list[float] = []
    """How long each job ran that came to its own end: that says how long such jobs run."""

    def mean_values(self) -> dict[str, float]:
        """The values for `MEAN`: as if one job after the other had been taken into it."""
        keep, added, fresh = 1.0, 0.0, 0.0
        for number, seconds in enumerate(self.ran_seconds):
            keep *= 1 - _WEIGHT_OF_LAST
            added += _WEIGHT_OF_LAST * (seconds - added)
            fresh = fresh + _WEIGHT_OF_LAST * (seconds - fresh) if number else seconds
        return {"told": len(self.ran_seconds), "keep": keep, "added": added, "fresh": fresh}
