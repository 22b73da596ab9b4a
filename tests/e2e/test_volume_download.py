"""`jig volumes download` against a real platform: what breaks it off loses nothing, and nothing of others is seen."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.test_object_storage import make_server
from e2e.test_volumes_cli import create, digests, end, start, write
from jig.client import Client
from jig.contexts import Target
from object_storage import ObjectStorage
from platform_process import PlatformProcess, wait_for

FILES = 3000
MIB = 1024 * 1024
LARGE_BYTES = 400 * MIB


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of so many small files that a run over them can be broken off."""
    folder = tmp_path_factory.mktemp("small")
    for number in range(FILES):
        write(folder / f"{number % 30}" / f"ä {number:04}.bin", os.urandom(8 * 1024 + number))
    write(folder / "empty", b"")
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A folder with a large file, which takes no room on the disk."""
    folder = tmp_path / "large"
    write(folder / "model.bin", os.urandom(MIB))
    os.truncate(folder / "model.bin", LARGE_BYTES)
    return folder


@pytest.fixture
def platform(own_platform: PlatformProcess) -> PlatformProcess:
    own_platform.environment["XDG_CACHE_HOME"] = str(own_platform.folder / "cache")
    return own_platform


@pytest.fixture
def in_a_bucket(objects: ObjectStorage, tmp_path: Path) -> Iterator[PlatformProcess]:
    server = make_server(tmp_path / "server", objects, str(objects.make_place()), XDG_CACHE_HOME=str(tmp_path))
    server.start()
    yield server
    server.close()


def arrived(folder: Path) -> int:
    """How many files of a folder are whole."""
    return sum(path.is_file() and not path.name.startswith(".jig-") for path in folder.rglob("*"))


def test_a_killed_download_goes_on_with_what_is_missing(platform: PlatformProcess, small: Path) -> None:
    create(platform, "words", small)
    folder = platform.folder / "words"
    jig = start(platform, "volumes", "download", "words")
    wait_for(lambda: arrived(folder) > FILES // 20, "some files have arrived")
    jig.kill()
    end(jig)
    there = arrived(folder)
    assert there < FILES, "the download was over before it could be killed: make more files"
    finished = platform.jig("volumes", "download", "words", "--json", cwd=platform.folder)
    assert digests(folder) == digests(small)
    document = json.loads(finished.stdout)
    assert (document["there_files"], document["fetched_files"]) == (there, FILES + 1 - there)


def test_a_large_file_goes_on_where_it_was_interrupted(platform: PlatformProcess, large: Path) -> None:
    create(platform, "model", large)
    folder = platform.folder / "model"
    jig = start(platform, "volumes", "download", "model")
    wait_for(lambda: any(path.stat().st_size > 8 * MIB for path in folder.glob(".jig-*")), "some of it has arrived")
    jig.send_signal(signal.SIGINT)
    code, said = end(jig)
    assert code == 130, said
    assert "To go on, run the same command again" in said
    finished = platform.jig("volumes", "download", "model", "--json", cwd=platform.folder)
    document = json.loads(finished.stdout)
    assert document["resumed_bytes"] > 8 * MIB
    assert document["resumed_bytes"] + document["fetched_bytes"] == LARGE_BYTES
    assert digests(folder) == digests(large)


@pytest.mark.parametrize("name", ["words", "model"])
def test_a_download_outlives_a_platform_that_is_killed(
    platform: PlatformProcess, small: Path, large: Path, name: str
) -> None:
    source = {"words": small, "model": large}[name]
    create(platform, name, source)
    folder = platform.folder / name
    jig = start(platform, "volumes", "download", name)
    wait_for(lambda: any(path.is_file() and path.stat().st_size for path in folder.rglob("*")), "it has begun")
    platform.kill()
    platform.start()
    code, said = end(jig)
    assert code == 0, said
    assert digests(folder) == digests(source)


def test_a_volume_that_is_deleted_meanwhile_is_said_to_be_gone(platform: PlatformProcess, small: Path) -> None:
    create(platform, "words", small)
    jig = start(platform, "volumes", "download", "words")
    wait_for(lambda: arrived(platform.folder / "words") > 0, "some files have arrived")
    jig.send_signal(signal.SIGSTOP)
    platform.jig("volumes", "delete", "words", "--yes", cwd=platform.folder)
    jig.send_signal(signal.SIGCONT)
    code, said = end(jig)
    assert code == 1, said
    assert "There is no volume 'words'" in said


def test_a_viewers_key_is_enough_and_another_projects_finds_nothing(platform: PlatformProcess, small: Path) -> None:
    create(platform, "words", small)
    platform.environment |= {
        "TOGETHER_BASE_URL": platform.base_url,
        "TOGETHER_API_KEY": platform.create_key("default", "viewer"),
    }
    platform.jig("volumes", "download", "words", "--path", "7", cwd=platform.folder)
    assert digests(platform.folder / "words" / "7") == digests(small / "7")
    platform.environment["TOGETHER_API_KEY"] = platform.create_key("other")
    refused = platform.jig("volumes", "download", "words", "elsewhere", cwd=platform.folder, check=False)
    assert refused.returncode == 1
    assert "There is no volume words." in refused.stderr
    assert not (platform.folder / "elsewhere").exists()


def test_a_version_comes_as_it_was(platform: PlatformProcess, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / "a", b"one")
    create(platform, "words", source)
    write(source / "a", b"two")
    platform.jig("volumes", "update", "words", source, cwd=platform.folder)
    platform.jig("volumes", "download", "words", "old", "--version", "0", cwd=platform.folder)
    platform.jig("volumes", "download", "words", "new", cwd=platform.folder)
    assert [(platform.folder / name / "a").read_bytes() for name in ("old", "new")] == [b"one", b"two"]
    refused = platform.jig("volumes", "download", "words", "new", "--version", "0", cwd=platform.folder, check=False)
    assert "1 file in new would be overwritten:\n  a\n" in refused.stderr


def test_out_of_a_bucket_too(in_a_bucket: PlatformProcess, small: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in list((small / "3").iterdir()):
        write(source / path.name, path.read_bytes())
    content = os.urandom(2 * MIB)
    write(source / "large.bin", content)
    create(in_a_bucket, "words", source)
    in_a_bucket.jig("volumes", "download", "words", cwd=in_a_bucket.folder)
    assert digests(in_a_bucket.folder / "words") == digests(source)
    with (
        Client(Target(in_a_bucket.base_url, in_a_bucket.api_key, "default")) as client,
        client.download("/v1/storage/words/0/large.bin", start_bytes=MIB) as rest,
    ):
        assert rest.is_rest
        assert b"".join(rest.chunks) == content[MIB:]
