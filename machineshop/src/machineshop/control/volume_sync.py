"""Copies the files of volumes from their origins.

Place in the flow: making a version with an origin puts it into the store as pending; this loop begins to copy it, a few
versions at once and of each a few files. A file appears as soon as it is whole. What a crash or another server's turn
cuts off goes on with the files that are not there yet. Trouble that may pass is waited out, for so long.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from machineshop.blobs.base import BlobStore
from machineshop.blobs.origin import Origin, OriginObject, OriginTrouble, tag_of
from machineshop.config import MIB
from machineshop.control.copies import Copy, Key, Tries
from machineshop.control.origin_calls import OriginCalls
from machineshop.control.sync_turns import (
    MAX_VERSIONS_AT_ONCE,
    UnderWay,
    Waiting,
    next_to_give_way,
    next_up,
)
from machineshop.control.unchanged import Unchanged, Wanted
from machineshop.errors import Conflict, InvalidRequest, MachineshopError, NotFound, PayloadTooLarge, Unavailable
from machineshop.models import Volume, VolumeOrigin, VolumeVersion
from machineshop.services.file_names import check_file_name
from machineshop.services.files import FileService
from machineshop.services.multipart import MULTIPART_LIMIT_BYTES
from machineshop.services.volume_checks import VolumeChecks
from machineshop.services.volume_paths import MAX_FILES, trouble_in
from machineshop.states import VolumeState
from machineshop.store import volume_files, volumes
from machineshop.store.database import Database

log = logging.getLogger(__name__)

MAX_FILES_AT_ONCE = 4
# Trouble in a row, without a file in between, that comes to half an hour.
MAX_TRIES = 12
MAX_MESSAGE_LENGTH = 1000
# The largest volume's takes minutes.
LISTING_SECONDS = 1800.0
# Those with no more than markers of folders, or with what an earlier one had. As many as the largest volume has.
MAX_BARREN_PAGES = 200
TURN_OVER = "Others wait to be copied: it goes on with what is missing when it is its turn again."

BEING_COPIED = "Being copied:"

# Opens the origin of a version of a project.
Opener = Callable[[str, VolumeOrigin], Awaitable[Origin]]


class VolumeSync:
    """The loop's pass, and the copies that are under way between passes.

    Args:
        database: The store.
        files: Takes what is copied.
        blobs: Says what is there of what was copied before.
        open_origin: Opens the origin of a version.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        files: FileService,
        blobs: BlobStore,
        open_origin: Opener,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._files = files
        self._open_origin = open_origin
        self._clock = clock
        self._checks = VolumeChecks(database)
        self._unchanged = Unchanged(database, blobs, files.leftovers, clock)
        self._threads = ThreadPoolExecutor(MAX_VERSIONS_AT_ONCE * MAX_FILES_AT_ONCE, thread_name_prefix="volume-sync")
        self._copies: dict[Key, Copy] = {}
        self._turns: dict[str, int] = {}
        self._turns_of_versions: dict[Key, int] = {}
        self._turn_numbers = itertools.count()
        self._tries: dict[Key, Tries] = {}

    async def run_once(self, now: float) -> int:
        """Begin to copy what is to be copied, as far as there is room; returns how many versions have begun.

        What is copied and is not there any more ends, and what has had its turn gives way to what finds no room.
        """
        found = await self._database.read(volumes.copied)
        keys = {Key(version.volume_id, version.number) for _, version in found}
        self._tries = {key: tries for key, tries in self._tries.items() if key in keys}
        self._turns_of_versions = {key: turn for key, turn in self._turns_of_versions.items() if key in keys}
        for key, copy in self._copies.items():
            is_deleted = key not in keys
            if is_deleted or copy.is_cut_off(now):
                copy.task.cancel()
        waiting: dict[Key, tuple[Volume, VolumeVersion]] = {}
        for volume, version in found:
            key = Key(version.volume_id, version.number)
            waits = key in self._tries and self._tries[key].not_before > now
            if key not in self._copies and not waits:
                waiting[key] = (volume, version)
        begun = 0
        while (chosen := self._next_of(waiting)) is not None:
            self._begin(chosen, *waiting.pop(chosen), now)
            begun += 1
        await self._make_room(waiting, now)
        return begun

    @property
    def busy(self) -> int:
        """How many versions are being copied."""
        return len(self._copies)

    async def close(self) -> None:
        """Break off what is under way; the next start goes on with it."""
        tasks = [copy.task for copy in self._copies.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)

    def _next_of(self, waiting: dict[Key, tuple[Volume, VolumeVersion]]) -> Key | None:
        under_way = [copy.project_id for copy in self._copies.values()]
        at = next_up(self._waiting(waiting), under_way, self._turns)
        return None if at is None else list(waiting)[at]

    def _waiting(self, waiting: dict[Key, tuple[Volume, VolumeVersion]]) -> list[Waiting]:
        turns = self._turns_of_versions
        return [Waiting(volume.project_id, turns.get(key, -1)) for key, (volume, _) in waiting.items()]

    async def _make_room(self, waiting: dict[Key, tuple[Volume, VolumeVersion]], now: float) -> None:
        """Have one copy that has had its turn begin no more files, where something waits for that."""
        copies = list(self._copies.items())
        under_way = [UnderWay(copy.project_id, copy.begun_at, copy.gives_way) for _, copy in copies]
        at = next_to_give_way(self._waiting(waiting), under_way, self._turns, now)
        if at is not None:
            key, copy = copies[at]
            copy.give_way(now)
            log.info("volumes.sync_gives_way volume_id=%s version=%d", *key)
            await self._database.write(volumes.note, *key, TURN_OVER)

    def _begin(self, key: Key, volume: Volume, version: VolumeVersion, now: float) -> None:
        task = asyncio.create_task(self._sync(key, volume, version), name=f"sync-{volume.name}-{version.number}")
        self._copies[key] = Copy(task, volume.project_id, now)
        self._turns[volume.project_id] = self._turns_of_versions[key] = next(self._turn_numbers)
        task.add_done_callback(lambda _: self._copies.pop(key, None))

    async def _sync(self, key: Key, volume: Volume, version: VolumeVersion) -> None:
        """Copy one version; whatever goes wrong is written down with it, or tried again."""
        try:
            await self._copy_version(key, volume, version)
        except OriginTrouble as trouble:
            await self._troubled(key, volume, trouble.message, is_final=trouble.is_final)
        except (InvalidRequest, PayloadTooLarge) as error:
            await self._troubled(key, volume, error.message, is_final=True)
        except (NotFound, Conflict) as error:
            log.info("volumes.sync_ended volume_id=%s version=%d %s", *key, error.message)
        except Unavailable as error:
            await self._troubled(key, volume, error.message, is_final=False)
        except Exception:
            log.exception("volumes.sync_defect volume_id=%s version=%d", *key)
            await self._troubled(key, volume, MachineshopError().message, is_final=False)

    async def _copy_version(self, key: Key, volume: Volume, version: VolumeVersion) -> None:
        if version.origin is None:
            return
        if version.state is VolumeState.PENDING:
            now = self._clock()
            if not await self._database.write(volumes.move, *key, VolumeState.SYNCING, now):
                return
            log.info("volumes.sync_begun volume_id=%s version=%d uri=%s", *key, version.origin.uri)
        origin = OriginCalls(await self._open_origin(volume.project_id, version.origin), self._threads)
        try:
            wanted = await self._listed(origin, volume, version)
            if version.message in ("", TURN_OVER) or version.message.startswith(BEING_COPIED):  # trouble stays said
                await self._database.write(volumes.note, *key, in_all(wanted))
            todo = await self._unchanged.missing(volume, version, wanted)
            is_done = await self._copy_all(key, origin, volume, todo)
        finally:
            await origin.close()
        if not is_done:
            return
        if await self._checks.sealing(
            lambda: self._database.write(volumes.finish_copy, volume, version.number, self._clock())
        ):
            log.info("volumes.synced volume_id=%s version=%d files=%d", *key, len(wanted))

    async def _listed(self, origin: OriginCalls, volume: Volume, version: VolumeVersion) -> dict[str, Wanted]:
        """What there is to copy, by the names that the files will have.

        Raises:
            OriginTrouble: There is nothing.
            InvalidRequest: It cannot be the files of a volume.
        """
        prefix = volume_files.prefix_of(volume.name, version.number)
        found: dict[str, Wanted] = {}
        uri = "" if version.origin is None else version.origin.uri
        barren = 0
        try:
            async with asyncio.timeout(LISTING_SECONDS):
                async for page in origin.pages():
                    known = len(found)
                    for each in page:
                        _check(prefix, each)
                        found[prefix + each.path] = Wanted(each, tag_of(origin.address, uri, each))
                    barren += len(found) == known
                    if barren > MAX_BARREN_PAGES:
                        raise OriginTrouble(
                            f"The list of the objects under {uri} has more than {MAX_BARREN_PAGES} pages with nothing "
                            "new in them.",
                            is_final=True,
                        )
                    if len(found) > MAX_FILES:
                        break
        except TimeoutError:
            text = f"The list of the objects under {uri} took more than {LISTING_SECONDS:.0f} s."
            raise OriginTrouble(text, is_final=False) from None
        if not found:
            raise OriginTrouble(f"There is no object under {uri}.", is_final=True)
        if trouble := await asyncio.to_thread(trouble_in, [each.found.path for each in found.values()]):
            raise InvalidRequest(trouble)
        return found

    async def _copy_all(self, key: Key, origin: OriginCalls, volume: Volume, todo: dict[str, Wanted]) -> bool:
        """Copy files; False where the copy has given way before the last of them."""
        left = list(reversed(todo.items()))
        copy = self._copies[key]

        async def copy_next() -> None:
            while left and not copy.gives_way:
                await self._copy(copy, origin, volume, *left.pop())
                self._tries.pop(key, None)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(MAX_FILES_AT_ONCE):
                    group.create_task(copy_next())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return not left

    async def _copy(self, copy: Copy, origin: OriginCalls, volume: Volume, name: str, wanted: Wanted) -> None:
        async def counted(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in chunks:
                copy.received_bytes += len(chunk)
                yield chunk

        async with contextlib.aclosing(origin.chunks(wanted.found)) as chunks:
            await self._files.copy(volume, name, counted(chunks), wanted.found.size, wanted.tag)

    async def _troubled(self, key: Key, volume: Volume, message: str, *, is_final: bool) -> None:
        now = self._clock()
        message = _shown(message)
        tries = self._tries.setdefault(key, Tries())
        tries.failed(now)
        log.warning(
            "volumes.sync_trouble volume_id=%s version=%d project_id=%s tries=%d %s",
            *(*key, volume.project_id, tries.count, message),
        )
        if is_final or tries.count >= MAX_TRIES:
            done = self._database.write(volumes.move, *key, VolumeState.FAILED, now, message)
        else:
            text = f"{message} It is tried again ({tries.count} of {MAX_TRIES} tries)."
            done = self._database.write(volumes.note, *key, text)
        with contextlib.suppress(Unavailable):  # then it is tried, and fails, again
            await done


def in_all(wanted: Mapping[str, Wanted]) -> str:
    """How much a version is to have, beside which what it has so far says how far its copy is."""
    size = sum(each.found.size for each in wanted.values())
    return f"{BEING_COPIED} {len(wanted):,} {'file' if len(wanted) == 1 else 'files'}, {size / MIB:,.1f} MiB in all."


def _shown(message: str) -> str:
    """Without what an origin put into it that is not for people to read."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in message[:MAX_MESSAGE_LENGTH])


def _check(prefix: str, found: OriginObject) -> None:
    """Refuse an object that cannot be a file of a volume."""
    try:
        check_file_name(prefix + found.path)
    except InvalidRequest as error:
        raise InvalidRequest(f"The object '{found.path[:200]}' cannot be a file here: {error.message}") from None
    if found.size > MULTIPART_LIMIT_BYTES:
        raise PayloadTooLarge(what=f"'{found.path[:200]}'", limit_bytes=MULTIPART_LIMIT_BYTES, mend="Split it.")
