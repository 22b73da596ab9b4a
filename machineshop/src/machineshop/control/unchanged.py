"""What of an origin need not be copied: what is copied already, and what an older version has of unchanged objects.

Place in the flow: before `volume_sync` asks for any object's bytes. An object is unchanged where its storage, place,
size, ETag and time of change are those that the older version's file was copied from, which the file's tag says. Files
of other volumes are not looked at: whoever runs a storage may have it say anything, of what is theirs.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from machineshop.blobs.base import BlobStore
from machineshop.blobs.origin import OriginObject
from machineshop.models import StoredFile, Volume, VolumeVersion
from machineshop.runtime.volumes.fetch import each
from machineshop.services.leftovers import Leftovers
from machineshop.services.volume_early import adopt
from machineshop.services.volumes import LINKED_AT_A_TIME
from machineshop.store import volume_files, volume_links, volumes
from machineshop.store.database import Database

log = logging.getLogger(__name__)

# As many as hide the way to a storage elsewhere.
LOOKED_FOR_AT_ONCE = 16


class Wanted(NamedTuple):
    """An object that is to be a file of a version."""

    found: OriginObject
    tag: str


class Unchanged:
    """Finds what need not be copied, and puts it into the version.

    Args:
        database: The store.
        blobs: Says whether bytes are there.
        leftovers: Removes the bytes that nobody needs any more.
        clock: Seconds since the epoch.
    """

    def __init__(self, database: Database, blobs: BlobStore, leftovers: Leftovers, clock: Callable[[], float]) -> None:
        self._database = database
        self._blobs = blobs
        self._leftovers = leftovers
        self._clock = clock

    async def missing(self, volume: Volume, version: VolumeVersion, wanted: dict[str, Wanted]) -> dict[str, Wanted]:
        """What is to be copied of what a version is to have, by the names of its files; what else it has goes.

        Raises:
            NotFound: The volume is gone.
            VolumeSealed: The version is not being copied any more.
        """
        await adopt(self._database, volume, version.number)  # to be removed, if the origin has none of its name
        there = await self._database.read(volume_files.with_blobs, volume.project_id, volume.id, version.number)
        await self._remove(volume, version, [file.name for file, _ in there if file.name not in wanted])
        current = {file.name for file, _ in there if file.name in wanted and file.origin_tag == wanted[file.name].tag}
        todo = {name: found for name, found in wanted.items() if name not in current}
        linked = await self._link(volume, version, todo)
        return {name: found for name, found in todo.items() if name not in linked}

    async def _remove(self, volume: Volume, version: VolumeVersion, names: list[str]) -> None:
        for at in range(0, len(names), LINKED_AT_A_TIME):
            some = names[at : at + LINKED_AT_A_TIME]
            keys = await self._database.write(volume_files.remove_named, volume.id, version.number, some)
            await self._leftovers.remove(keys)

    async def _link(self, volume: Volume, version: VolumeVersion, todo: dict[str, Wanted]) -> set[str]:
        """Give the version those files of the newest one of the same origin that are of unchanged objects."""
        older = await self._newest_of(volume, version)
        if older is None or not todo:
            return set()
        prefix, old_prefix = (volume_files.prefix_of(volume.name, number) for number in (version.number, older))
        sources: dict[str, str] = {}

        async def look_for(had: tuple[StoredFile, str]) -> None:
            file, blob_key = had
            name = prefix + file.name.removeprefix(old_prefix)
            if name in todo and file.origin_tag == todo[name].tag and await self._blobs.size(blob_key) == file.size:
                sources[name] = file.name

        had = await self._database.read(volume_files.with_blobs, volume.project_id, volume.id, older)
        await each(had, look_for, LOOKED_FOR_AT_ONCE)
        names = sorted(sources)
        for at in range(0, len(names), LINKED_AT_A_TIME):
            some = {name: sources[name] for name in names[at : at + LINKED_AT_A_TIME]}
            replaced = await self._database.write(volume_links.link_copied, volume, version.number, some, self._clock())
            await self._leftovers.remove(replaced)
        log.info("volumes.linked volume_id=%s version=%d of=%d files=%d", volume.id, version.number, older, len(names))
        return set(names)

    async def _newest_of(self, volume: Volume, version: VolumeVersion) -> int | None:
        if version.origin is None:
            return None
        return await self._database.read(volumes.newest_from, volume.id, version.origin.uri)
