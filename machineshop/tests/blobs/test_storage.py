"""Bytes in and out: nothing published unverified, nothing left behind, nothing read from elsewhere."""

import asyncio
import hashlib
import os
import random
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from machineshop.blobs import Storage
from machineshop.blobs.base import BlobMissing, Upload
from machineshop.blobs.layout import is_digest, new_file_key, new_registry_key
from machineshop.blobs.local import WHOLE_BYTES
from machineshop.blobs.ranges import ByteRange
from machineshop.blobs.uploads import LocalUpload
from machineshop.errors import DiskFull, PayloadTooLarge
from machineshop.ids import is_id, new_id

MIB = 1024 * 1024


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    storage = Storage(tmp_path)
    yield storage
    storage.close()


def path_of(upload: Upload) -> Path:
    """The file that grows."""
    assert isinstance(upload, LocalUpload)
    return upload.path


async def parts(*pieces: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The operating system refuses to let any file of this process grow beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def uploaded(storage: Storage, content: bytes) -> Upload:
    upload = await storage.uploads.create("files/project", new_id())
    await upload.append(parts(content))
    return upload


async def read(storage: Storage, key: str, wanted: ByteRange | None = None) -> bytes:
    blob = await storage.blobs.open(key)
    return b"".join([chunk async for chunk in blob.chunks(wanted)])


def files_under(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_what_goes_in_in_odd_pieces_comes_out_whole(storage: Storage) -> None:
    source = random.Random(1)
    pieces = [source.randbytes(source.choice([0, 1, 17, 65536, 300_000, 2 * MIB])) for _ in range(40)]
    upload = await storage.uploads.create("files/project", new_id())
    for at in range(0, len(pieces), 7):
        await upload.append(parts(*pieces[at : at + 7]))
    content = b"".join(pieces)
    assert (upload.size, upload.digest) == (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")

    key = new_registry_key(upload.digest)
    await upload.publish(key)
    assert await storage.blobs.size(key) == len(content)
    assert await read(storage, key) == content
    assert await read(storage, key, ByteRange(MIB - 1, 2 * MIB + 1)) == content[MIB - 1 : 2 * MIB + 1]
    assert not path_of(upload).exists()


@pytest.mark.parametrize(
    "wanted", [None, ByteRange(0, 1), ByteRange(4095, 4 * MIB + 4097), ByteRange(9 * MIB, 9 * MIB + 3)]
)
async def test_windows_hold_the_same_bytes(storage: Storage, wanted: ByteRange | None) -> None:
    content = random.Random(2).randbytes(9 * MIB + 3)
    await (await uploaded(storage, content)).publish("files/00/one")
    blob = await storage.blobs.open("files/00/one")
    windows = b"".join([bytes(window) async for window in blob.windows(wanted)])
    assert windows == (content if wanted is None else content[wanted.start : wanted.end])


async def test_an_empty_upload_is_an_empty_blob(storage: Storage) -> None:
    upload = await uploaded(storage, b"")
    await upload.publish("files/00/empty")
    assert await read(storage, "files/00/empty") == b""


async def test_what_came_before_a_break_is_kept_and_can_be_gone_on_from(storage: Storage) -> None:
    name = new_id()
    upload = await storage.uploads.create("registry/repository", name)
    with pytest.raises(ConnectionError):
        await upload.append(parts(b"ab" * MIB, b"tail", error=ConnectionError()))
    assert upload.size == 2 * MIB + 4

    reopened = await storage.uploads.reopen("registry/repository", name)
    assert reopened is not None
    await reopened.append(parts(b"!"))
    assert reopened.digest == f"sha256:{hashlib.sha256(b'ab' * MIB + b'tail!').hexdigest()}"


async def test_an_upload_that_was_never_begun_cannot_be_reopened(storage: Storage) -> None:
    assert await storage.uploads.reopen("registry/repository", new_id()) is None


async def test_cancelling_an_append_leaves_file_and_hash_in_step(storage: Storage) -> None:
    upload = await storage.uploads.create("files/project", new_id())
    seen = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB
            seen.set()
            await asyncio.sleep(0)

    appending = asyncio.create_task(upload.append(endless()))
    await seen.wait()
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    content = path_of(upload).read_bytes()
    assert len(content) == upload.size
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == upload.digest


async def test_more_than_the_limit_is_refused(storage: Storage) -> None:
    upload = await storage.uploads.create("files/project", new_id())
    with pytest.raises(PayloadTooLarge):
        await upload.append(parts(b"12345", b"6"), limit_bytes=5)


async def test_a_full_disk_is_said_and_nothing_is_left(storage: Storage, tmp_path: Path) -> None:
    upload = await storage.uploads.create("files/project", new_id())
    with files_limited_to(3 * MIB), pytest.raises(DiskFull):
        await upload.append(parts(*[b"x" * MIB] * 8))
    assert not path_of(upload).exists()
    assert files_under(tmp_path) == []


async def test_small_ones_that_find_no_room_take_none(small_disk: Path) -> None:
    storage = Storage(small_disk)
    kept = {"files/00/kept": memoryview(bytes(MIB))}
    await storage.blobs.put_all(kept)
    with pytest.raises(DiskFull):
        await storage.blobs.put_all({f"files/00/{number}": memoryview(bytes(16_000)) for number in range(500)})
    assert [entry.key for entry in await storage.blobs.entries("files")] == list(kept)
    storage.close()


async def test_a_blob_is_replaced_at_once_and_readers_keep_what_they_opened(storage: Storage) -> None:
    key = "files/00/one"
    await (await uploaded(storage, b"old" * MIB)).publish(key)
    blob = await storage.blobs.open(key)
    chunks = blob.chunks()
    first = await anext(chunks)
    await (await uploaded(storage, b"new")).publish(key)
    assert first + b"".join([chunk async for chunk in chunks]) == b"old" * MIB
    assert await read(storage, key) == b"new"
    await storage.blobs.delete(key)
    await storage.blobs.delete(key)
    assert await storage.blobs.size(key) is None
    with pytest.raises(BlobMissing):
        await storage.blobs.open(key)


async def test_reading_leaves_no_file_open(storage: Storage) -> None:
    await (await uploaded(storage, b"x" * 3 * MIB)).publish("files/00/one")
    await read(storage, "files/00/one")
    before = open_files()
    assert sum([len(window) async for window in (await storage.blobs.open("files/00/one")).windows()]) == 3 * MIB
    await read(storage, "files/00/one")
    await (await storage.blobs.open("files/00/one")).close()
    await storage.blobs.open("files/00/one")  # and never read
    half_read = (await storage.blobs.open("files/00/one")).chunks()
    await anext(half_read)
    await half_read.aclose()  # type: ignore[attr-defined]
    assert open_files() == before


@pytest.mark.parametrize("size", [1, WHOLE_BYTES, WHOLE_BYTES + 1])
async def test_a_small_one_is_read_as_it_is_opened(storage: Storage, size: int) -> None:
    content = random.Random(size).randbytes(size)
    await storage.blobs.put_all({"files/00/one": memoryview(content)})
    before = open_files()
    blob = await storage.blobs.open("files/00/one")
    assert (open_files() > before) is (size > WHOLE_BYTES)
    await storage.blobs.delete("files/00/one")
    assert blob.size == size
    last = ByteRange(size - 1, size)
    assert b"".join([chunk async for chunk in blob.chunks(last)]) == content[-1:]
    assert open_files() == before


async def test_entries_and_old_uploads_are_found(storage: Storage) -> None:
    await (await uploaded(storage, b"1")).publish("files/00/one")
    await (await uploaded(storage, b"2")).publish(new_registry_key("sha256:" + "0" * 64))
    assert [entry.key for entry in await storage.blobs.entries("files")] == ["files/00/one"]
    assert await storage.blobs.entries("nothing") == []

    old, new = await uploaded(storage, b"old"), await uploaded(storage, b"new")
    os.utime(path_of(old), (1000, 1000))
    assert await storage.uploads.remove_older("files", 2000) == [path_of(old).name]
    assert path_of(new).exists()
    assert not path_of(old).exists()


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha512:" + "0" * 127, "sha256:../" + "0" * 61]
)
def test_only_digests_become_keys(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(ValueError, match="not a digest"):
        new_registry_key(text)


def test_ids_are_safe_names() -> None:
    assert is_id(new_id())
    assert new_file_key().startswith("files/")
    assert not any(is_id(text) for text in ("", "..", "../x", new_id().upper() + "A", "{" + new_id() + "}"))
