"""Uploads that come in parts: each part is a local file of its own, and in the end one file is made of them all.

What belongs to an upload lies beside one another, named by its id; `blobs.layout` says where.
"""

import fcntl
import os
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from machineshop.blobs.disk import DiskThreads, full_disk_is_an_answer
from machineshop.blobs.uploads import UploadHeld, Uploads
from machineshop.ids import new_id

FACTS = "facts"
_COPY_BYTES = 256 * 1024 * 1024


class Part(NamedTuple):
    """A part of an upload as its uploader knows it: its number, and the SHA-256 of its bytes in hex digits."""

    number: int
    etag: str


class PartMissing(Exception):
    """No part of this number and digest has come. Services turn it into the answer that fits."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Parts:
    """The unfinished uploads in parts under one directory, in groups (whose they are)."""

    def __init__(self, directory: Path, uploads: Uploads, threads: DiskThreads) -> None:
        self._directory = directory
        self._uploads = uploads
        self._threads = threads

    async def write_facts(self, group: str, upload_id: str, facts: bytes) -> None:
        """Keep what is known of an upload; the first time begins it.

        Raises:
            DiskFull: There is no room.
        """
        await self._threads.run(_write_facts, self._path(group, upload_id, FACTS), facts)

    async def facts(self, group: str, upload_id: str) -> bytes | None:
        """What is known of an upload; None: there is none."""
        try:
            return await self._threads.run(self._path(group, upload_id, FACTS).read_bytes)
        except FileNotFoundError:
            return None

    async def all_facts(self, group: str) -> dict[str, bytes]:
        """What is known of every upload of a group, by their ids."""
        return await self._threads.run(_all_facts, self._directory / group)

    async def groups(self, kind: str) -> list[str]:
        """The groups that have uploads."""
        return await self._threads.run(_groups, self._directory, kind)

    async def receive(
        self, group: str, upload_id: str, number: int, parts: AsyncIterable[bytes], limit_bytes: int
    ) -> str:
        """Take a part's bytes, and put them on disk; returns their SHA-256 in hex digits.

        Raises:
            PayloadTooLarge: More came than may.
            DiskFull: There is no room.
        """
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
        """Keep others, also other servers, from putting the same upload together.

        Raises:
            UploadHeld: Somebody does.
            FileNotFoundError: There is no such upload.
        """
        fd = await self._threads.run(_lock, self._path(group, upload_id, FACTS))
        try:
            yield
        finally:
            os.close(fd)

    async def sizes(self, group: str, upload_id: str, parts: Sequence[Part]) -> list[int]:
        """The size of each of these parts in bytes.

        Raises:
            PartMissing: One has not come.
        """
        return await self._threads.run(_sizes, [(part, self._part(group, upload_id, part)) for part in parts])

    async def assemble(self, group: str, upload_id: str, parts: Sequence[Part]) -> Path:
        """Make one file of these parts, which stay; the caller has the file moved or removed.

        Raises:
            DiskFull: There is no room for it.
        """
        whole = self._path(group, upload_id, f"whole.{new_id()}")
        await self._threads.run(whole.touch)
        try:
            for part in parts:
                await self._threads.run(_append, whole, self._part(group, upload_id, part))
        except BaseException:
            await self._threads.run(whole.unlink, missing_ok=True)
            raise
        return whole

    async def discard(self, group: str, upload_id: str, *, keep_facts: bool = False) -> None:
        """Remove an upload, or its parts alone."""
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


def _sizes(parts: Sequence[tuple[Part, Path]]) -> list[int]:
    found = []
    for part, path in parts:
        try:
            found.append(path.stat().st_size)
        except FileNotFoundError:
            raise PartMissing(part.number) from None
    return found


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


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise UploadHeld from None
    except BaseException:
        os.close(fd)
        raise
    return fd
