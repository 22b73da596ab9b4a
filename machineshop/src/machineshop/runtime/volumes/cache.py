"""The volumes on this machine: each version is brought here once for all replicas that mount it, and stays a while.

Place in the flow: `local.py` has a volume made before the replicas that mount it start, and its tree (`trees.py`) is
what they see. Files are further names of the platform's own bytes where those lie on the same file system; else they
are copied (`copies.py`), and what the copies take is bounded.
"""

import asyncio
import contextlib
import errno
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

from machineshop.errors import MachineshopError, RuntimeUnavailable
from machineshop.runtime.base import VolumeFile, VolumeSource, VolumeVersion
from machineshop.runtime.engine import PreparationFailed
from machineshop.runtime.volumes.base import FAILED_MOUNT
from machineshop.runtime.volumes.copies import Copies
from machineshop.runtime.volumes.disk import boot_id, flush, space
from machineshop.runtime.volumes.fetch import each, fetch
from machineshop.runtime.volumes.trees import FILE_MODE, TreeKey, Trees

DISK_SHARE = 0.5
"""What copies may take of the disk where nobody says how much."""
COPIES_AT_ONCE = 16
"""Files of one volume: as many as hide the way to a storage elsewhere; each has a piece of its bytes in memory."""
LINKS_AT_ONCE = 8
SWEEP_SECONDS = 600.0
SWEEP_AGAIN_SECONDS = 5.0
"""Where something is deleted and still mounted: by a replica that ends."""
GIB = 1024**3

logger = logging.getLogger(__name__)


class NoRoom(MachineshopError):
    """It needs {needed_gib:.3g} GiB. {why}"""


class VolumeCache:
    """The volumes on this machine.

    Args:
        folder: Where they are kept.
        source: Where they come from.
        limit_bytes: What copies of files may take; None: half of the disk. Files that the platform's storage has on
            the same file system take nothing.
    """

    def __init__(self, folder: Path, source: VolumeSource, limit_bytes: int | None = None) -> None:
        self._folder, self._source, self._limit_bytes = folder, source, limit_bytes
        self._trees, self._copies, self._scratch = Trees(folder / "trees"), Copies(folder / "copies"), folder / "new"
        self._in_use: Callable[[], frozenset[TreeKey]] = frozenset
        self._locks: defaultdict[TreeKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._coming: defaultdict[TreeKey, int] = defaultdict(int)
        """How many bytes have been given room and are still to come."""
        self._room = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None
        self._deleted = asyncio.Event()

    async def start(self, in_use: Callable[[], frozenset[TreeKey]]) -> None:
        """See `Volumes`."""
        self._in_use = in_use
        try:
            await asyncio.to_thread(self._open)
        except OSError as error:
            raise RuntimeUnavailable(message=f"The folder {self._folder} cannot be used: {error}.") from error
        self._sweeper = asyncio.create_task(self._keep_sweeping(), name="sweep volumes")

    async def close(self) -> None:
        """See `Volumes`."""
        self._trees.stopping.set()
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            await asyncio.gather(sweeper, return_exceptions=True)

    async def make(self, project_id: str, volume: VolumeVersion) -> Path:
        """See `Volumes`."""
        key = TreeKey(project_id, volume.volume_id, volume.version)
        async with self._locks[key]:
            try:
                if not await asyncio.to_thread(self._trees.use, key):
                    await self._make(key)
            except (MachineshopError, OSError) as error:
                what = f"Version {volume.version} of volume '{volume.name}'"
                raise PreparationFailed(FAILED_MOUNT, f"{what} cannot be mounted: {_why(error)}") from error
            finally:
                self._coming.pop(key, None)
        return self._trees.files(key)

    def drop_deleted(self) -> None:
        """See `Volumes`."""
        self._deleted.set()

    async def sweep(self) -> bool:
        """Remove what was never completed and the versions that are no longer there, but for those in use.

        Returns:
            Whether any stays that is no longer there.
        """
        stay = False
        for key in await asyncio.to_thread(self._trees.known):
            is_gone = await self._is_gone(key)
            if is_gone or await asyncio.to_thread(self._trees.made, key) is None:
                stay |= not await self._evict(key) and is_gone
            elif key in self._in_use():
                await asyncio.to_thread(self._trees.use, key)
        return stay

    async def _make(self, key: TreeKey) -> None:
        files = await self._source.volume_files(*key)
        tree = self._trees.files(key)
        await asyncio.to_thread(self._trees.begin, key, files)
        not_linked = await self._link(files, tree)
        lacking = await asyncio.to_thread(self._copies.link, not_linked, tree)
        while lacking:  # more than once only where more files have the same bytes than one file may have names
            wanted = {file.digest: file for file in lacking}
            await self._make_room(key, sum(file.size for file in wanted.values()))
            await each(wanted.values(), partial(self._copy, key, tree), COPIES_AT_ONCE)
            same = [file for file in lacking if wanted[file.digest] is not file]
            lacking = await asyncio.to_thread(self._copies.link, same, tree)
        await asyncio.to_thread(self._finish, key, sum(file.size for file in not_linked))
        logger.info("volume loaded: volume=%s version=%d files=%d", key.volume_id, key.version, len(files))

    async def _link(self, files: list[VolumeFile], tree: Path) -> list[VolumeFile]:
        """Give the files their names whose bytes the platform's storage has here; returns the others."""
        linked, others = list[VolumeFile](), list[VolumeFile]()

        async def link(file: VolumeFile) -> None:
            done = await self._source.link_file(file, tree / file.path)
            (linked if done else others).append(file)

        await each(files, link, LINKS_AT_ONCE)
        return others + await asyncio.to_thread(_let_all_read, linked, tree)

    async def _copy(self, key: TreeKey, tree: Path, file: VolumeFile) -> None:
        fetched = self._scratch / uuid4().hex
        try:
            with fetched.open("xb") as out:
                await fetch(self._source, file, out)
            await asyncio.to_thread(self._copies.admit, fetched, file.digest, tree / file.path)
        finally:
            fetched.unlink(missing_ok=True)
        self._coming[key] -= file.size

    def _finish(self, key: TreeKey, copied_bytes: int) -> None:
        # What says that it is complete must not outlive its files, should the power fail.
        flush(self._folder)
        self._trees.finish(key, copied_bytes)

    async def _make_room(self, key: TreeKey, needed_bytes: int) -> None:
        """See to it that so much may come, at the cost of what nobody has used for the longest time.

        Raises:
            NoRoom: It may not: what else there is, is in use.
        """
        if not needed_bytes:
            return
        async with self._room:
            evictable = await asyncio.to_thread(self._evictable, self._in_use())
            while (why := await asyncio.to_thread(self._lack_of_room, needed_bytes)) is not None:
                if not evictable:
                    raise NoRoom(needed_gib=needed_bytes / GIB, why=why)
                await self._evict(evictable.pop(0))
            self._coming[key] = needed_bytes

    def _lack_of_room(self, needed_bytes: int) -> str | None:
        """Why so much more cannot come; None: it can."""
        coming = sum(self._coming.values())
        limit, used, free = self._limit(), self._copies.used_bytes() + coming, space(self._folder).free - coming
        if used + needed_bytes > limit:
            return (
                f"Volumes may take {limit / GIB:.3g} GiB on this machine, and those in use take {used / GIB:.3g} GiB. "
                "Destroy a deployment that has another volume, or start the platform with a larger --volume-cache-gib."
            )
        if needed_bytes > free:
            return f"This machine's disk has {max(0, free) / GIB:.3g} GiB free. Make room on it."
        return None

    def _limit(self) -> int:
        return int(space(self._folder).total * DISK_SHARE) if self._limit_bytes is None else self._limit_bytes

    def _evictable(self, in_use: frozenset[TreeKey]) -> list[TreeKey]:
        """What would make room, the least recently used first."""
        keys = [key for key in self._trees.known() if key not in in_use]
        return [key for key in keys if (made := self._trees.made(key)) is None or made.copied_bytes]

    async def _evict(self, key: TreeKey) -> bool:
        """Remove a version, unless it is made or in use; returns whether it was removed."""
        if self._locks[key].locked():
            return False
        async with self._locks[key]:
            if key in self._in_use():
                return False
            await asyncio.to_thread(self._trees.remove, key)
            await asyncio.to_thread(self._copies.sweep)
        logger.info("volume removed from this machine: volume=%s version=%d", key.volume_id, key.version)
        return True

    async def _is_gone(self, key: TreeKey) -> bool:
        try:
            return not await self._source.has_volume(*key)
        except MachineshopError as error:
            logger.info("not known whether a volume is still there: volume=%s error=%s", key.volume_id, error)
        return False

    async def _keep_sweeping(self) -> None:
        while True:
            self._deleted.clear()
            stay = False
            try:
                stay = await self.sweep()
            except Exception:
                logger.exception("volumes not swept; they will be")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_AGAIN_SECONDS if stay else SWEEP_SECONDS):
                    await self._deleted.wait()

    def _open(self) -> None:
        for folder in (self._folder, self._folder / "trees", self._folder / "copies"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        written, this = self._folder / "boot-id", boot_id()
        if not written.exists() or written.read_text() != this:
            # What was not completed before the machine stopped may be on its disk in part.
            for key in self._trees.known():
                if self._trees.made(key) is None:
                    self._trees.remove(key)
            self._copies.sweep()
            written.write_text(this)


def _let_all_read(linked: list[VolumeFile], tree: Path) -> list[VolumeFile]:
    """Replicas may run as anybody; returns those files that are not ours to open, which are no longer linked then."""
    foreign = []
    for file in linked:
        try:
            (tree / file.path).chmod(FILE_MODE)
        except PermissionError:
            (tree / file.path).unlink()
            foreign.append(file)
    return foreign


def _why(error: MachineshopError | OSError) -> str:
    if isinstance(error, MachineshopError):
        return error.message
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "This machine's disk is full. Make room on it."
    return f"This machine's disk refuses ({os.strerror(error.errno or 0)})."
