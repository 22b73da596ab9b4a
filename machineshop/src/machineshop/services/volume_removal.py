"""Removes the files of volumes that were deleted, some at a time, so that everybody else's writes come in between."""

import logging

from machineshop.services.leftovers import Leftovers
from machineshop.store import volume_removal as store
from machineshop.store.database import Database

log = logging.getLogger(__name__)

# So many keep the store's writer from others for some milliseconds.
REMOVED_AT_A_TIME = 250


class VolumeRemoval:
    """The loop's pass."""

    def __init__(self, database: Database, leftovers: Leftovers) -> None:
        self._database = database
        self._leftovers = leftovers

    async def run_once(self, _now: float) -> int:
        """Remove the files of volumes that were deleted; returns how many. What is cut off goes on with the next."""
        removed = 0
        while (keys := await self._database.write(store.remove_files, REMOVED_AT_A_TIME)) is not None:
            await self._leftovers.remove(keys)
            removed += len(keys)
        if removed:
            log.info("volumes.removed files=%d", removed)
        return removed
