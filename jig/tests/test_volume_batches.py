"""Small files on their way, many in one request."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fake_volumes
import pytest
from fake_platform import KEY, FakePlatform

from jig.client import Client
from jig.contexts import Target
from jig.errors import VolumeError
from jig.volumes.batches import BATCH_BYTES, BATCH_FILES, SMALL_BELOW_BYTES, batches_of, named_in, pieces_of
from jig.volumes.digests import HashedFile
from jig.volumes.remote import Version
from jig.volumes.source import SourceFile
from jig.volumes.tally import Tally
from jig.volumes.upload import upload


@pytest.fixture
def client(platform: FakePlatform) -> Iterator[Client]:
    with Client(Target(platform.url, KEY, "default")) as client:
        yield client


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def hashed(place: Path, content: bytes) -> HashedFile:
    place.write_bytes(content)
    status = place.stat()
    file = SourceFile(place.name, place, status.st_size, status.st_mtime_ns)
    return HashedFile(file, hashlib.sha256(content).hexdigest())


def send(client: Client, files: list[HashedFile], progress: list[int] | None = None) -> None:
    counted = [] if progress is None else progress
    upload(client, Version(client, "words", 0), "vol-words", files, counted.append, Tally(), lambda _: None)


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([0], [1]),
        ([1] * (BATCH_FILES + 1), [BATCH_FILES, 1]),
        ([BATCH_BYTES - 1, 1, 1], [2, 1]),
        ([SMALL_BELOW_BYTES - 1] * 5, [2, 2, 1]),
        ([BATCH_BYTES + 1, 1], [1, 1]),
    ],
    ids=["none", "empty", "many", "bytes", "largest", "too-large"],
)
def test_batches_have_bounds(sizes: list[int], batches: list[int]) -> None:
    assert [len(batch) for batch in batches_of(sizes, lambda each: each)] == batches


def test_small_files_go_together_in_pieces_worth_sending(tmp_path: Path) -> None:
    files = [hashed(tmp_path / f"{number:03}", b"%d" % (number % 10) * 1000) for number in range(300)]
    pieces = list(pieces_of(files))
    assert b"".join(pieces) == b"".join(each.file.place.read_bytes() for each in files)
    assert len(pieces) == 5


def test_many_small_files_take_few_requests(client: Client, platform: FakePlatform, tmp_path: Path) -> None:
    platform.volumes.versions["words"] = [fake_volumes.FakeVersion()]
    contents = {f"{number:04}": b"%d" % number for number in range(1200)}
    progress: list[int] = []
    send(client, [hashed(tmp_path / name, content) for name, content in contents.items()], progress)
    assert fake_volumes.files_of(platform, "words", 0) == contents
    assert len(platform.requests) == 3
    assert sum(progress) == sum(map(len, contents.values()))


def test_what_did_not_arrive_is_none_of_the_progress(client: Client, platform: FakePlatform, tmp_path: Path) -> None:
    platform.volumes.versions["words"] = [fake_volumes.FakeVersion()]
    platform.failures.append((f"PUT {fake_volumes.VOLUMES}/words/versions/0/files", 503))
    progress: list[int] = []
    send(client, [hashed(tmp_path / "a", b"abc")], progress)
    assert progress == [3, -3, 3]


def test_a_file_that_is_another_one_by_now_is_named(client: Client, platform: FakePlatform, tmp_path: Path) -> None:
    platform.volumes.versions["words"] = [fake_volumes.FakeVersion()]
    good, bad = hashed(tmp_path / "a", b"abc"), hashed(tmp_path / "b", b"abd")
    with pytest.raises(VolumeError, match="b has changed since it was read") as caught:
        send(client, [good, HashedFile(bad.file, "0" * 64)])
    assert "nothing writes to the folder" in str(caught.value.hint)
    assert fake_volumes.files_of(platform, "words", 0) == {}


def test_a_file_is_found_by_its_whole_name_whatever_quotes_are_in_it() -> None:
    names = ["b", "a' 'b' c", "' 'b"]
    batch = [HashedFile(SourceFile(name, Path("x"), 1, 0), "") for name in names]
    for each in batch:
        assert named_in(f"The bytes of '{each.file.name}' have another SHA-256.", batch) is each
    assert named_in("Something else.", batch) is batch[0]
