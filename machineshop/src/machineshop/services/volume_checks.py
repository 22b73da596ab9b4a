"""Has the paths of versions of volumes looked at before they are sealed, while the store's writer is everybody's."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from machineshop.errors import Conflict
from machineshop.ids import new_id
from machineshop.services.volume_early import adopt
from machineshop.services.volume_paths import PathCheck
from machineshop.store import volume_checks as store
from machineshop.store.database import Database
from machineshop.store.volume_checks import Unchecked
from machineshop.store.volume_files import prefix_of

T = TypeVar("T")

# A version whose files change during each look is not one that its owner is done with.
MAX_LOOKS = 5
# Each takes a core for a second or two where a version has as many files and folders as one may have.
CHECKED_AT_ONCE = 2
# Names that are read at once: some milliseconds of a reader.
PAGE = 2000


class VolumeChecks:
    """The looks of one service: one of a project at a time, so that no project keeps all others waiting."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._room = asyncio.Semaphore(CHECKED_AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def sealing(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do what seals versions; each that nobody has looked at since it changed is looked at, and then it is done.

        Raises:
            Conflict: Files of a version came or went during each look.
        """
        looks: Counter[tuple[str, int]] = Counter()
        while True:
            try:
                return await work()
            except Unchecked as unchecked:
                key = unchecked.volume.id, unchecked.number
                if looks[key] == MAX_LOOKS:
                    raise Conflict(message=_changing(unchecked)) from None
                looks[key] += 1
                await self._look(unchecked)

    async def _look(self, version: Unchecked) -> None:
        volume, number = version.volume, version.number
        turn = self._turns.setdefault(volume.project_id, asyncio.Lock())
        async with turn, self._room:
            await adopt(self._database, volume, number)
            check_id = await self._database.write(store.begin, volume.id, number, new_id())
            if check_id is None:
                return
            check = PathCheck()
            start, after = len(prefix_of(volume.name, number)), ""
            while names := await self._database.read(store.names, volume.id, number, after, PAGE):
                await asyncio.to_thread(check.add, [name[start:] for name in names])
                if check.trouble:
                    break
                after = names[-1]
            await self._database.write(store.note, volume.id, number, check_id, check.trouble)


def _changing(version: Unchecked) -> str:
    return (
        f"The files of version {version.number} of the volume '{version.volume.name}' change while they are looked at "
        "to seal it: let the uploads end, and do this again."
    )
