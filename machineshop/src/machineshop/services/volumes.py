"""Volumes: making them and their versions, and taking them away.

Their files come in by the routes of files, or are copied by `control.volume_sync`; `services.volume_files` gives them
to whoever mounts them.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec

from machineshop.errors import Conflict, InvalidRequest, NotFound
from machineshop.ids import new_id
from machineshop.models import Contents, StoredFile, Volume, VolumeOrigin, VolumeVersion
from machineshop.services import volume_early
from machineshop.services.leftovers import Leftovers
from machineshop.services.volume_checks import VolumeChecks
from machineshop.services.volume_rules import Claim, VolumeFields, check_claims, origin_of, required
from machineshop.states import VolumeState
from machineshop.store import volume_files, volume_links, volume_removal
from machineshop.store import volumes as store
from machineshop.store.database import Database
from machineshop.store.volume_links import Held

# What one answer shows of a version; who wants more pages through them.
SHOWN_FILES = 20_000
MAX_PAGE = 10_000
# So many at a time keep the store's writer from others for some milliseconds.
LINKED_AT_A_TIME = 250
# Versions whose files need not be counted again: some megabytes of memory.
MAX_COUNTED = 20_000


class SeenVersion(msgspec.Struct, frozen=True):
    """One version of a volume, and who mounts it."""

    version: VolumeVersion
    mounted_by: list[str]
    """The ids of deployments."""
    contents: Contents
    without_bytes: tuple[str, int] | None = None
    """The name of a file whose bytes are not in the storage, and how many such files there are."""

    @property
    def message(self) -> str:
        """Why it has failed or is not copied yet, or what is wrong with its files."""
        if self.version.message or self.without_bytes is None:
            return self.version.message
        name, count = self.without_bytes
        others = f", nor are those of {count - 1} more of its files" if count > 1 else ""
        path = name.split("/", 2)[2]
        return (
            f"The bytes of '{path}' are not in the platform's storage{others}: no replica can mount this version. "
            "Upload what is missing again, into a new version where this one is sealed."
        )

    @property
    def status(self) -> str:
        """In the words that clients know: what is open counts as ready as soon as it has a file."""
        if self.version.state is VolumeState.OPEN:
            return VolumeState.READY if self.contents.count else VolumeState.PENDING
        return self.version.state


class SeenVolume(msgspec.Struct, frozen=True):
    """A volume, the version that was asked for, and all others."""

    volume: Volume
    shown: SeenVersion
    versions: list[SeenVersion]
    mounts_count: int
    """How many deployments mount any version."""
    files: list[StoredFile]
    """Some of them, where there are very many."""


class VolumeService:
    """The volumes of all projects. Every operation takes the project first."""

    def __init__(
        self,
        database: Database,
        leftovers: Leftovers,
        check_origin: Callable[[VolumeOrigin], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take what they rest on.

        Args:
            database: The store.
            leftovers: Removes the bytes that nobody needs any more.
            check_origin: Refuses origins that nothing may be copied from.
            clock: Seconds since the epoch.
        """
        self._database = database
        self._leftovers = leftovers
        self._check_origin = check_origin
        self._clock = clock
        self._checks = VolumeChecks(database)
        self._counted: dict[tuple[str, int], Contents] = {}

    async def create(self, project_id: str, fields: VolumeFields) -> SeenVolume:
        """A new volume with a version 0, open for uploads or about to be copied.

        Raises:
            InvalidRequest: A field is missing or wrong; `param` names it.
            AlreadyExists: The project has one of this name.
        """
        name, content = required(fields)
        origin = origin_of(name, 0, content)
        if origin is not None:
            self._check_origin(origin)
        now = self._clock()
        volume = Volume(
            id=new_id(), project_id=project_id, name=name, current_version=0, created_at=now, updated_at=now
        )
        early = await self._database.read(volume_files.loose, project_id, name, 0, "", volume_early.AT_A_TIME)
        await self._database.write(store.insert, volume, _new_version(volume.id, 0, origin, now), early)
        await self._settle_early(volume, 0, origin)
        return await self.describe(project_id, volume.name)

    async def list_all(self, project_id: str) -> list[SeenVolume]:
        """A project's volumes by name, without their files and older versions."""
        found = []
        users = await self._users(project_id)
        without_bytes = await self._database.read(volume_files.without_bytes, project_id)
        users_of: defaultdict[str, set[str]] = defaultdict(set)
        for (volume_id, _), ids in users.items():
            users_of[volume_id].update(ids)
        for volume in await self._database.read(store.list_all, project_id):
            version = await self._database.read(store.version, volume.id, volume.current_version)
            if version is not None:  # else it was deleted meanwhile
                seen = await self._seen(version, users, without_bytes)
                found.append(SeenVolume(volume, seen, [], len(users_of[volume.id]), []))
        return found

    async def describe(self, project_id: str, name_or_id: str, number: int | None = None) -> SeenVolume:
        """A volume with its versions and the files of one of them.

        Args:
            project_id: Whose.
            name_or_id: Which.
            number: The version whose files are shown; None: the current one.

        Raises:
            NotFound: The project has no such volume, or it has no such version.
        """
        volume = await self.get(project_id, name_or_id)
        versions = await self._database.read(store.versions, volume.id)
        wanted = volume.current_version if number is None else number
        users = await self._users(project_id)
        without_bytes = await self._database.read(volume_files.without_bytes, project_id)
        seen = [await self._seen(version, users, without_bytes) for version in versions]
        shown = next((each for each in seen if each.version.number == wanted), None)
        if shown is None:
            raise NotFound(what="version", id=str(wanted), where=f" of the volume '{volume.name}'")
        mounts_count = len({user for each in seen for user in each.mounted_by})
        files = await self._database.read(volume_files.list_files, volume.id, wanted, "", SHOWN_FILES)
        return SeenVolume(volume, shown, seen, mounts_count, files)

    async def get(self, project_id: str, name_or_id: str) -> Volume:
        """What is known of a volume itself.

        Raises:
            NotFound: The project has no such volume.
        """
        volume = await self._database.read(store.get, project_id, name_or_id)
        if volume is None:
            raise NotFound(what="volume", id=name_or_id[:200])
        return volume

    async def update(self, project_id: str, name_or_id: str, fields: VolumeFields) -> SeenVolume:
        """Make the next version, of what was uploaded under its prefix or of what is to be copied.

        Raises:
            NotFound: The project has no such volume.
            InvalidRequest: A field is wrong; `param` names it.
            Conflict: Files of the current version, which is sealed by that, come and go all the time.
        """
        volume = await self.get(project_id, name_or_id)
        if fields.name not in {volume.name, msgspec.UNSET}:
            raise InvalidRequest(
                f"A volume's name cannot be changed (from '{volume.name}' to '{str(fields.name)[:100]}'), since its "
                "files and the deployments that mount it know it by that: make one of the new name.",
                param="name",
            )
        if fields.content is not msgspec.UNSET:
            number = volume.current_version + 1
            origin = origin_of(volume.name, number, fields.content)
            if origin is not None:
                self._check_origin(origin)
            now = self._clock()
            added = _new_version(volume.id, number, origin, now)
            first = (project_id, volume.name, number, "", volume_early.AT_A_TIME)
            early = await self._database.read(volume_files.loose, *first)
            await self._checks.sealing(lambda: self._database.write(store.add_version, project_id, added, early, now))
            await self._settle_early(volume, number, origin)
        return await self.describe(project_id, volume.name)

    async def seal(self, project_id: str, name_or_id: str) -> Volume:
        """Let the current version's files be what they are: it is about to be brought to where replicas run.

        Raises:
            NotFound: The project has no such volume.
            Conflict: The version is not ready by that, or its files come and go all the time.
        """
        volume, version = await self._checks.sealing(
            lambda: self._database.write(store.seal_current, project_id, name_or_id, self._clock())
        )
        if version.state is not VolumeState.READY:
            why = version.message or "it has no file yet, or they are still copied."
            raise Conflict(message=f"Version {version.number} of the volume '{volume.name}' is not ready: {why}")
        return volume

    async def delete(self, project_id: str, name_or_id: str) -> Volume:
        """Take a volume away with all its versions and files, also those of a version that was never made.

        Nobody sees any of it from then on; the bytes go soon (`VolumeRemoval`).

        Raises:
            NotFound: The project has no such volume.
            VolumeMounted: A deployment mounts it.
        """
        return await self._database.write(volume_removal.delete_volume, project_id, name_or_id, self._clock())

    async def list_files(
        self, project_id: str, name_or_id: str, number: int, after: str, limit: int
    ) -> tuple[list[StoredFile], bool]:
        """Files of a version, which may be the next one, by name; and whether there are more.

        Args:
            project_id: Whose.
            name_or_id: Which volume.
            number: Which version.
            after: The path that the last page ended with; empty for the first.
            limit: How many, `MAX_PAGE` at most.

        Raises:
            NotFound: The project has no such volume, or it has no such version.
        """
        volume = await self.get(project_id, name_or_id)
        if not 0 <= number <= volume.current_version + 1:
            raise NotFound(what="version", id=str(number), where=f" of the volume '{volume.name}'")
        start = volume_files.prefix_of(volume.name, number) + after if after else ""
        wanted = min(limit, MAX_PAGE)
        found = await self._database.read(volume_files.list_files, volume.id, number, start, wanted + 1)
        return found[:wanted], len(found) > wanted

    async def claim(self, project_id: str, name_or_id: str, number: int, claims: list[Claim]) -> list[Held]:
        """Which of a client's files a version has; those that any version has are put into it on the way.

        Args:
            project_id: Whose.
            name_or_id: Which volume.
            number: The version that is being filled: the current one, or the next.
            claims: The files that it is to have.

        Raises:
            NotFound: The project has no such volume.
            VolumeSealed: The version's files are settled.
            InvalidRequest: It is no version to fill, or a path is none.
        """
        volume = await self.get(project_id, name_or_id)
        check_claims(volume_files.prefix_of(volume.name, number), claims)
        held: list[Held] = []
        for at in range(0, len(claims), LINKED_AT_A_TIME):
            wanted = [(claim.path, claim.size, claim.sha256) for claim in claims[at : at + LINKED_AT_A_TIME]]
            some, replaced = await self._database.write(
                volume_links.link, project_id, volume.name, number, wanted, self._clock()
            )
            await self._leftovers.remove(replaced)
            held += some
        return held

    async def _settle_early(self, volume: Volume, number: int, origin: VolumeOrigin | None) -> None:
        """What was uploaded for a version before it was made becomes its files, unless it is copied from elsewhere."""
        if origin is None:
            await volume_early.adopt(self._database, volume, number)
        else:
            await volume_early.clear(self._database, self._leftovers, volume, number)

    async def _seen(
        self,
        version: VolumeVersion,
        users: Mapping[tuple[str, int], list[str]],
        without_bytes: Mapping[tuple[str, int], tuple[str, int]],
    ) -> SeenVersion:
        key = (version.volume_id, version.number)
        return SeenVersion(version, users.get(key, []), await self._contents(version), without_bytes.get(key))

    async def _contents(self, version: VolumeVersion) -> Contents:
        """How much a version has; of one that is ready that is counted once, as it never changes."""
        key = (version.volume_id, version.number)
        if key in self._counted:
            return self._counted[key]
        contents = await self._database.read(volume_files.contents, *key)
        if version.state is VolumeState.READY:
            if len(self._counted) >= MAX_COUNTED:
                self._counted.clear()
            self._counted[key] = contents
        return contents

    async def _users(self, project_id: str) -> dict[tuple[str, int], list[str]]:
        """The ids of the deployments that mount each version of each volume."""
        found: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for each in await self._database.read(store.mounts_of, project_id, self._clock()):
            found[each.mount.volume_id or "", each.mount.version or 0].append(each.deployment_id)
        return dict(found)


def _new_version(volume_id: str, number: int, origin: VolumeOrigin | None, now: float) -> VolumeVersion:
    state = VolumeState.OPEN if origin is None else VolumeState.PENDING
    return VolumeVersion(volume_id=volume_id, number=number, state=state, origin=origin, created_at=now)
