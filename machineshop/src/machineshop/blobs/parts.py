"""Uploads that come in parts: each part is a local file of its own, and in the end one file is made of them all.

What belongs to an upload lies beside one another, named by its id; `blobs.layout` says where.
"""

import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from machineshop.blobs.base import Part, PartMissing
from machineshop.blobs.disk import DiskThreads, full_disk_is_an_answer, lock
from machineshop.blobs.local import LocalBlobs
from machineshop.blobs.uploads import LocalUploads
from machineshop.ids import new_id

FACTS = "facts"
_COPY_BYTES = 256 * 1024 * 1024
_ETAG = re.compile(r"[0-9a-f]{64}")


class LocalParts:
    """The unfinished uploads in parts under one directory; see `PartUploads`."""

    def __init__(self, directory: Path, blobs: LocalBlobs, uploads: LocalUploads, threads: DiskThreads) -> None:
        self._directory = directory
        self._blobs = blobs
        self._uploads = uploads
        self._threads = threads

    async def write_facts(self, group: str, upload_id: str, facts: bytes) -> None:
        """See `PartUploads`."""
        await self._threads.run(_write_facts, self._path(group, upload_id, FACTS), facts)

    async def facts(self, group: str, upload_id: str) -> bytes | None:
        """See `PartUploads`."""
        try:
            return await self._threads.run(self._path(group, upload_id, FACTS).read_bytes)
        except FileNotFoundError:
            return None

    async def all_facts(self, group: str) -> dict[str, bytes]:
        """See `PartUploads`: those that have ended too."""
        return await self._threads.run(_all_facts, self._directory / group)

    async def groups(self, kind: str) -> list[str]:
        """See `PartUploads`."""
        return await self._threads.run(_groups, self._directory, kind)

    async def part_urls(self, group: str, upload_id: str, count: int, lifetime_seconds: int) -> list[str] | None:  # noqa: ARG002
        """See `PartUploads`: they are brought to us."""
        return None

    async def receive(
        self, group: str, upload_id: str, number: int, parts: AsyncIterable[bytes], limit_bytes: int
    ) -> str:
        """See `PartUploads`; the ETag is their SHA-256 in hex digits."""
        upload = await self._uploads.create(group, f"{upload_id}.{number}.{new_id()}")
        try:
            await upload.append(parts, limit_bytes)
            etag = upload.digest.removeprefix("sha256:")
            await self._threads.run(_keep_part, upload.path, self._path(group, upload_id, f"{number}.{etag}"))
        except BaseException:
            await upload.discard()
            raise
        return etag

    @asynccontextmanager
    async def hold(self, group: str, upload_id: str) -> AsyncIterator[None]:
        """See `PartUploads`: other servers too."""
        fd = await self._threads.run(lock, self._path(group, upload_id, FACTS))
        try:
            yield
        finally:
            os.close(fd)

    async def key(self, group: str, upload_id: str) -> str | None:  # noqa: ARG002
        """See `PartUploads`."""
        return None

    async def size(self, group: str, upload_id: str, parts: Sequence[Part]) -> int:
        """See `PartUploads`."""
        for part in parts:
            if not _ETAG.fullmatch(part.etag):
                raise PartMissing(part.number)
        return await self._threads.run(_size, [(part, self._part(group, upload_id, part)) for part in parts])

    async def publish(self, group: str, upload_id: str, parts: Sequence[Part], key: str) -> None:
        """See `PartUploads`; the parts stay."""
        whole = self._path(group, upload_id, f"whole.{new_id()}")
        await self._threads.run(whole.touch)
        try:
            for part in parts:
                await self._threads.run(_append, whole, self._part(group, upload_id, part))
            await self._blobs.publish(whole, key)
        except BaseException:
            await self._threads.run(whole.unlink, missing_ok=True)
            raise

    async def discard(self, group: str, upload_id: str, *, keep_facts: bool = False) -> None:
        """See `PartUploads`."""
        await self._threads.run(_discard, self._directory / group, upload_id, keep_facts)

    def _part(self, group: str, upload_id: str, part: Part) -> Path:
        return self._path(group, upload_id, f"{part.number}.{part.etag}")

    def _path(self, group: str, upload_id: str, rest: str) -> Path:
        return self._directory / group / f"{upload_id}.{rest}"


def _write_facts(path: Path, facts: bytes) -> None:
    new = path.with_name(f"{path.name}.{new_id()}")
    with full_disk_is_an_answer():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.write_bytes(facts)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def _all_facts(directory: Path) -> dict[str, bytes]:
    found = {}
    for path in directory.glob(f"*.{FACTS}"):
        try:
            found[path.name.removesuffix(f".{FACTS}")] = path.read_bytes()
        except FileNotFoundError:
            continue  # ended meanwhile
    return found


def _groups(directory: Path, kind: str) -> list[str]:
    return [str(path.relative_to(directory)) for path in (directory / kind).glob("*") if path.is_dir()]


def _keep_part(path: Path, target: Path) -> None:
    # On disk before it is acknowledged: its name vouches for every byte of it, also after a loss of power.
    with full_disk_is_an_answer():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        path.replace(target)


def _size(parts: Sequence[tuple[Part, Path]]) -> int:
    size = 0
    for part, path in parts:
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            raise PartMissing(part.number) from None
    return size


def _append(whole: Path, part: Path) -> None:
    """Copy a part to the end of the file; the bytes don't pass through this process."""
    with full_disk_is_an_answer(), whole.open("r+b", buffering=0) as target, part.open("rb", buffering=0) as source:
        target.seek(0, os.SEEK_END)
        left = os.fstat(source.fileno()).st_size
        while left:
            sent = os.sendfile(target.fileno(), source.fileno(), None, min(left, _COPY_BYTES))
            if not sent:
                raise OSError(f"{part.name} has become shorter")
            left -= sent


def _discard(directory: Path, upload_id: str, keep_facts: bool) -> None:
    for path in directory.glob(f"{upload_id}.*"):
        if not keep_facts or path.name != f"{upload_id}.{FACTS}":
            path.unlink(missing_ok=True)
