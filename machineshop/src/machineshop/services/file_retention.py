"""Removes files that users have uploaded, once they are as old as whoever runs the platform lets them get."""

import logging
from collections.abc import Sequence

from machineshop.config import KeptFiles
from machineshop.services.leftovers import Leftovers
from machineshop.store import file_retention as store
from machineshop.store.database import Database

log = logging.getLogger(__name__)

# So many keep the store's writer from others for some milliseconds.
REMOVED_AT_A_TIME = 250
DAY_SECONDS = 86400.0


class FileRetention:
    """The loop's pass.

    Args:
        database: The store.
        leftovers: Removes the bytes.
        rules: How long files are kept; of those that a name begins with the longest counts.
    """

    def __init__(self, database: Database, leftovers: Leftovers, rules: Sequence[KeptFiles]) -> None:
        self._database = database
        self._leftovers = leftovers
        self._rules = rules

    async def run_once(self, now: float) -> int:
        """Remove what is old enough; returns how many files."""
        removed = 0
        for rule in self._rules:
            others = [other.prefix for other in self._rules if len(other.prefix) > len(rule.prefix)]
            before = now - rule.days * DAY_SECONDS
            while names := await self._database.read(store.aged, rule.prefix, others, before, REMOVED_AT_A_TIME):
                keys = await self._database.write(store.remove_aged, names, before)
                await self._leftovers.discard(keys)
                removed += len(keys)
                if not keys:  # all of them were just uploaded anew: the next pass sees
                    break
        if removed:
            log.info("files.expired removed=%d", removed)
        return removed
