"""What every storage does, on a disk and in a bucket."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from machineshop.blobs import Storage, streams
from machineshop.blobs.base import BlobMissing, DigestDiffers, Part, PartMissing, Upload
from machineshop.blobs.bucket_storage import BucketStorage
from machineshop.blobs.layout import new_file_key, new_file_keys, new_registry_key
from machineshop.blobs.ranges import ByteRange
from machineshop.errors import PayloadTooLarge
from machineshop.ids import new_id

MIB = 1024 * 1024
GROUP = "registry/a-repository"
CONTENT = random.Random(3).randbytes(11 * MIB + 17)
PART_BYTES = 5 * MIB  # the least that a bucket takes: two parts, and some bytes
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Place:
    """A storage that can be opened several times, as by several servers."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self._folder = folder
        self._url = request.getfixturevalue("bucket") if kind == "bucket" else None
        self._opened: list[Storage] = []

    def open(self) -> Storage:
        storage = Storage(self._folder) if self._url is None else BucketStorage(self._url)
        self._opened.append(storage)
        return storage

    def close(self) -> None:
        for storage in self._opened:
            storage.close()


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(streams, "PART_BYTES", PART_BYTES)
    place = Place(request.param, tmp_path, request)
    yield place
    place.close()


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.open()


async def pieces(content: bytes, size: int = 300_001, error: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]
    if error is not None:
        raise error


async def publish(upload: Upload, digest: str | None = None) -> str:
    key = upload.key or new_registry_key(digest or DIGEST)
    await upload.publish(key, digest)
    return key


async def stored(storage: Storage, content: bytes, group: str = GROUP) -> str:
    upload = await storage.uploads.create(group, new_id())
    await upload.append(pieces(content))
    return await publish(upload)


async def read(storage: Storage, key: str, wanted: ByteRange | None = None) -> bytes:
    return b"".join([chunk async for chunk in (await storage.blobs.open(key)).chunks(wanted)])


async def nothing_left(storage: Storage) -> bool:
    return not [entry for kind in ("registry", "files") for entry in await storage.blobs.entries(kind)]


@pytest.mark.parametrize("group", [GROUP, "files/a-project"])
@pytest.mark.parametrize("size", [0, 5, PART_BYTES, len(CONTENT)])
async def test_what_goes_in_comes_out(storage: Storage, group: str, size: int) -> None:
    content = CONTENT[:size]
    upload = await storage.uploads.create(group, new_id())
    await upload.append(pieces(content))
    assert (upload.size, upload.digest) == (size, f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert await nothing_left(storage)

    key = await publish(upload)

    assert await storage.blobs.size(key) == size
    assert await read(storage, key) == content
    assert b"".join([bytes(part) async for part in (await storage.blobs.open(key)).windows()]) == content
    assert [entry.key for entry in await storage.blobs.entries(key.partition("/")[0])] == [key]


async def test_many_small_ones_are_stored_together(storage: Storage) -> None:
    contents = {key: CONTENT[at : at + at % 5000] for at, key in enumerate(new_file_keys(100))}
    contents[new_file_key()] = b"of another folder"
    await storage.blobs.put_all({key: memoryview(content) for key, content in contents.items()})
    assert {key: await read(storage, key) for key in contents} == contents
    assert {entry.key for entry in await storage.blobs.entries("files")} == set(contents)


async def test_many_small_ones_are_read_together(storage: Storage) -> None:
    contents = {key: CONTENT[at : at + at % 5000] for at, key in enumerate(new_file_keys(100))}
    await storage.blobs.put_all({key: memoryview(content) for key, content in contents.items()})
    keys = [*reversed(contents), next(iter(contents))]
    assert await storage.blobs.read_all(keys) == [contents[key] for key in keys]
    assert await storage.blobs.read_all([]) == []
    await storage.blobs.delete(keys[5])
    with pytest.raises(BlobMissing) as caught:
        await storage.blobs.read_all(keys)
    assert caught.value.args == (keys[5],)


async def test_ranges(storage: Storage) -> None:
    key = await stored(storage, CONTENT)
    for start, end in ((0, 1), (MIB - 1, MIB + 1), (len(CONTENT) - 1, len(CONTENT)), (5, 9 * MIB)):
        assert await read(storage, key, ByteRange(start, end)) == CONTENT[start:end]


async def test_what_is_not_there_is_missing(storage: Storage) -> None:
    key = new_file_key()
    assert await storage.blobs.size(key) is None
    with pytest.raises(BlobMissing):
        await storage.blobs.open(key)
    await storage.blobs.delete(key)
    assert await storage.blobs.entries("files") == []


async def test_what_is_deleted_is_gone(storage: Storage) -> None:
    key, other = await stored(storage, b"one"), await stored(storage, b"other")
    await storage.blobs.delete(key)
    assert await storage.blobs.size(key) is None
    assert await read(storage, other) == b"other"


@pytest.mark.parametrize("at", [3, 7 * MIB, 2 * PART_BYTES])
async def test_another_server_goes_on_with_an_upload(place: Place, at: int) -> None:
    here, there = place.open(), place.open()
    name = new_id()
    upload = await here.uploads.create(GROUP, name)
    with pytest.raises(ConnectionError):
        await upload.append(pieces(CONTENT[:at], error=ConnectionError()))

    reopened = await there.uploads.reopen(GROUP, name)
    assert reopened is not None
    assert reopened.size == at
    async with reopened.hold():
        await reopened.hash_with("sha256")
        await reopened.append(pieces(CONTENT[at:-1]))
    await upload.refresh()  # and back
    assert upload.size == len(CONTENT) - 1
    await upload.append(pieces(CONTENT[-1:]))
    assert await nothing_left(here)

    assert await read(there, await publish(upload, DIGEST)) == CONTENT
    with pytest.raises(FileNotFoundError):
        await reopened.refresh()
    assert await there.uploads.reopen(GROUP, name) is None


@pytest.mark.parametrize("goes_on_elsewhere", [False, True])
@pytest.mark.parametrize("size", [5, len(CONTENT)])
async def test_what_has_another_digest_is_not_kept(place: Place, size: int, goes_on_elsewhere: bool) -> None:
    storage, name = place.open(), new_id()
    upload: Upload | None = await storage.uploads.create(GROUP, name)
    assert upload is not None
    await upload.append(pieces(CONTENT[:size]))
    if goes_on_elsewhere:
        upload = await place.open().uploads.reopen(GROUP, name)
        assert upload is not None
    with pytest.raises(DigestDiffers) as caught:
        await publish(upload, f"sha256:{'0' * 64}")
    assert caught.value.actual == f"sha256:{hashlib.sha256(CONTENT[:size]).hexdigest()}"
    assert await nothing_left(storage)
    assert await storage.uploads.reopen(GROUP, name) is None


async def test_another_hash_can_be_asked_for_at_the_end(storage: Storage) -> None:
    digest = f"sha512:{hashlib.sha512(CONTENT).hexdigest()}"
    upload = await storage.uploads.create(GROUP, new_id())
    await upload.append(pieces(CONTENT))
    await upload.hash_with("sha512")
    assert await read(storage, await publish(upload, digest)) == CONTENT


async def test_what_comes_in_many_requests_is_one_blob(storage: Storage) -> None:
    upload = await storage.uploads.create(GROUP, new_id())
    for at in range(0, len(CONTENT), 3 * MIB):
        async with upload.hold():
            await upload.append(pieces(CONTENT[at : at + 3 * MIB]))
    assert await read(storage, await publish(upload, DIGEST)) == CONTENT


async def test_an_upload_that_is_given_up_leaves_nothing(storage: Storage) -> None:
    name = new_id()
    upload = await storage.uploads.create(GROUP, name)
    await upload.append(pieces(CONTENT))
    await upload.discard()
    assert await storage.uploads.reopen(GROUP, name) is None
    assert await nothing_left(storage)
    with pytest.raises(FileNotFoundError):
        async with upload.hold():
            await upload.refresh()


async def test_more_than_the_limit_is_refused(storage: Storage) -> None:
    upload = await storage.uploads.create("files/a-project", new_id())
    with pytest.raises(PayloadTooLarge):
        await upload.append(pieces(CONTENT), limit_bytes=10 * MIB)
    await upload.discard()
    assert await nothing_left(storage)


async def test_cancelling_an_append_leaves_an_upload_that_can_be_gone_on_with(place: Place) -> None:
    storage, name = place.open(), new_id()
    upload = await storage.uploads.create(GROUP, name)
    seen = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB
            if upload.size > 12 * MIB:
                seen.set()
            await asyncio.sleep(0)

    appending = asyncio.create_task(upload.append(endless()))
    await seen.wait()
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    reopened = await place.open().uploads.reopen(GROUP, name)
    assert reopened is not None
    assert reopened.size == upload.size
    digest = f"sha256:{hashlib.sha256(b'x' * upload.size).hexdigest()}"
    assert upload.digest == digest
    await publish(upload, digest)


async def test_old_uploads_are_removed(place: Place) -> None:
    storage, name = place.open(), new_id()
    upload = await storage.uploads.create(GROUP, name)
    await upload.append(pieces(CONTENT))
    assert await storage.uploads.remove_older("registry", 1000) == []
    assert await storage.uploads.remove_older("registry", 10**11) == [name]
    assert await storage.uploads.reopen(GROUP, name) is None


class Sent:
    """Parts that were sent, by whichever way the storage wants them."""

    def __init__(self, storage: Storage, upload_id: str) -> None:
        self._storage = storage
        self.upload_id = upload_id
        self.group = "multipart/a-project"

    async def begin(self, count: int) -> None:
        await self._storage.parts.write_facts(self.group, self.upload_id, b"facts")
        self._urls = await self._storage.parts.part_urls(self.group, self.upload_id, count, 3600)

    async def send(self, number: int, content: bytes) -> Part:
        if self._urls is None:
            taken = self._storage.parts.receive(self.group, self.upload_id, number, pieces(content), 100 * MIB)
            return Part(number, await taken)
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.put(self._urls[number - 1], content=content)
        assert answer.status_code == 200, answer.text
        return Part(number, answer.headers["etag"].strip('"'))

    async def publish(self, parts: list[Part]) -> str:
        key = await self._storage.parts.key(self.group, self.upload_id) or new_file_key()
        async with self._storage.parts.hold(self.group, self.upload_id):
            await self._storage.parts.publish(self.group, self.upload_id, parts, key)
        return key


@pytest.fixture
async def sent(storage: Storage) -> Sent:
    sent = Sent(storage, new_id())
    await sent.begin(3)
    return sent


async def test_parts_become_a_blob(storage: Storage, sent: Sent) -> None:
    third, first, second = [await sent.send(n, CONTENT[(n - 1) * PART_BYTES : n * PART_BYTES]) for n in (3, 1, 2)]
    parts = [first, second, third]
    assert await nothing_left(storage)
    assert await storage.parts.groups("multipart") == [sent.group]
    assert await storage.parts.size(sent.group, sent.upload_id, parts) == len(CONTENT)
    key = await sent.publish(parts)
    assert await read(storage, key) == CONTENT
    await sent.publish(parts)  # the answer was lost
    await storage.parts.write_facts(sent.group, sent.upload_id, b"ended")
    await storage.parts.discard(sent.group, sent.upload_id, keep_facts=True)
    assert await storage.parts.facts(sent.group, sent.upload_id) == b"ended"
    assert await read(storage, key) == CONTENT
    assert len(await storage.uploads.remove_older("multipart", 10**11)) == 1
    assert await storage.parts.facts(sent.group, sent.upload_id) is None
    assert await read(storage, key) == CONTENT


async def test_which_sending_of_a_part_counts(storage: Storage, sent: Sent) -> None:
    await sent.send(1, b"first")
    again = await sent.send(1, b"again")
    assert await read(storage, await sent.publish([again])) == b"again"


async def test_a_part_that_has_not_come_is_missing(storage: Storage, sent: Sent) -> None:
    first = await sent.send(1, CONTENT[:PART_BYTES])
    for missing in (Part(2, first.etag), Part(1, "0" * 64), Part(1, "0" * 32)):
        with pytest.raises(PartMissing) as caught:
            await storage.parts.size(sent.group, sent.upload_id, [missing])
        assert caught.value.number == missing.number


async def test_parts_that_are_given_up_are_gone(storage: Storage, sent: Sent) -> None:
    await sent.send(1, b"first")
    assert await storage.parts.all_facts(sent.group) == {sent.upload_id: b"facts"}
    await storage.parts.discard(sent.group, sent.upload_id)
    assert await storage.parts.facts(sent.group, sent.upload_id) is None
    assert await storage.parts.all_facts(sent.group) == {}
    with pytest.raises(FileNotFoundError):
        async with storage.parts.hold(sent.group, sent.upload_id):
            pass
    assert await nothing_left(storage)
