"""Keys that were tried in vain, by address: whoever guesses is slowed down, and nobody else.

A key of ours cannot be guessed, but one that somebody chose may be weak, and every try costs a look into the store.
What counts is how many different keys an address tries: a worker that goes on with its old key guesses nothing. A key
that was good lately is let in from anywhere, so that one bad client does not lock out the others behind its address.
"""

import ipaddress
from collections import OrderedDict

from machineshop.errors import TooManyFailures

# So many different keys may be tried at once, and one more each `REFILL_SECONDS`.
BURST = 30
REFILL_SECONDS = 2.0
MAX_ADDRESSES = 4096
MAX_PROVEN = 10_000
# Whoever has one IPv6 address has all of its network.
IPV6_NETWORK_BITS = 64


class FailedKeys:
    """What was tried in vain of late, and what was not. Bounded: the addresses that were heard of longest ago go."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Tries] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()

    def check(self, address: str, key_hash: str, now: float) -> None:
        """Refuse a key that is not known to be good from an address that has tried too many.

        Raises:
            TooManyFailures: It has; the key was not looked up.
        """
        if not self._addresses or key_hash in self._proven:
            return
        tries = self._addresses.get(_network(address))
        if tries is None or tries.has_tried(key_hash):
            return
        if (seconds := tries.seconds_to_next(now)) > 0:
            raise TooManyFailures(address=address, seconds=int(seconds) + 1)

    def failed(self, address: str, key_hash: str, now: float) -> None:
        """Note a key that nobody has."""
        self._proven.pop(key_hash, None)
        network = _network(address)
        tries = self._addresses.setdefault(network, _Tries(now))
        self._addresses.move_to_end(network)
        tries.note(key_hash, now)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)

    def proved(self, key_hash: str) -> None:
        """Note a key that is good."""
        self._proven[key_hash] = None
        self._proven.move_to_end(key_hash)
        if len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)


class _Tries:
    """One address: what it has left of its tries, and the last keys that it tried."""

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._at = now
        self._keys: OrderedDict[str, None] = OrderedDict()

    def has_tried(self, key_hash: str) -> bool:
        return key_hash in self._keys

    def seconds_to_next(self, now: float) -> float:
        self._refill(now)
        return 0.0 if self._left >= 1 else (1 - self._left) * REFILL_SECONDS

    def note(self, key_hash: str, now: float) -> None:
        self._refill(now)
        if key_hash in self._keys:
            return
        self._left = max(0.0, self._left - 1)
        self._keys[key_hash] = None
        if len(self._keys) > BURST:
            self._keys.popitem(last=False)

    def _refill(self, now: float) -> None:
        self._left = min(float(BURST), self._left + max(0.0, now - self._at) / REFILL_SECONDS)
        self._at = now


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network(f"{address.partition('%')[0]}/{IPV6_NETWORK_BITS}", strict=False))
    except ValueError:
        return address
