"""How much the gateway takes of whom. Pure: the time is given."""

from collections import Counter

from machineshop.config import GatewayLimits
from machineshop.errors import TooManyRequests

# Keys that have asked for nothing of late are forgotten at this many.
KEYS_REMEMBERED = 10_000


class KeyLimiter:
    """What each key has under way, and what it has begun of late."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._under_way: Counter[str] = Counter()
        self._debts: dict[str, tuple[float, float]] = {}

    def enter(self, key_id: str, now: float) -> None:
        """A request of this key begins.

        Raises:
            TooManyRequests: It has as many under way as it may, or has begun as many as it may.
        """
        limit = self._limits.key_concurrency
        if self._under_way.get(key_id, 0) >= limit:
            raise TooManyRequests(
                f"This key has {limit} requests under way, and may have no more. Wait for some to end."
            )
        if self._limits.key_rate > 0:
            self._charge(key_id, now)
        self._under_way[key_id] += 1

    @property
    def remembered(self) -> int:
        """Of how many keys it is known what they began of late."""
        return len(self._debts)

    def leave(self, key_id: str) -> None:
        """It has ended."""
        self._under_way[key_id] -= 1
        if not self._under_way[key_id]:
            del self._under_way[key_id]

    def _charge(self, key_id: str, now: float) -> None:
        """A bucket that holds what may be begun in a second: as a debt, which goes down as time passes."""
        rate = self._limits.key_rate
        debt, since = self._debts.get(key_id, (0.0, now))
        debt = max(0.0, debt - (now - since) * rate)
        if debt + 1.0 > max(1.0, rate):
            raise TooManyRequests(f"This key may begin {rate:g} requests a second, and has begun more. Send fewer.")
        if len(self._debts) >= KEYS_REMEMBERED:
            self._debts = {key: (d, at) for key, (d, at) in self._debts.items() if d > (now - at) * rate}
        self._debts[key_id] = (debt + 1.0, now)
