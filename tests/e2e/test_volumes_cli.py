"""`jig volumes` against a real platform: uploads that are killed, platforms that are, and two clients at once."""

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from platform_process import BIN, PlatformProcess, wait_for

FILES = 400
FILE_BYTES = 64 * 1024
MIB = 1024 * 1024
# What whoever comes second is told: there is a volume; it holds other files; files go; it is complete.
REFUSALS = ("The volume words already exists", "still not in words as they are here", "takes no change of its files")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of small files, of which a dozen requests bring all."""
    folder = tmp_path / "source"
    for number in range(FILES):
        write(folder / f"{number % 10}" / f"{number:04}.bin", os.urandom(FILE_BYTES))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where jig remembers uploads."""
    return tmp_path / "cache"


@pytest.fixture
def platform(own_platform: PlatformProcess, cache: Path) -> PlatformProcess:
    """A platform that the test may break, with a cache of jig's of its own."""
    own_platform.environment["XDG_CACHE_HOME"] = str(cache)
    return own_platform


def write(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def start(platform: PlatformProcess, *words: object) -> "subprocess.Popen[str]":
    """jig, running beside the test."""
    return subprocess.Popen(
        [BIN / "jig", *map(str, words)],
        env=platform.environment,
        cwd=platform.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code, and all that it has said."""
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err, out + err
    return process.returncode, out + err


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stored(platform: PlatformProcess, volume: str, version: int = 0) -> dict[str, str]:
    """The SHA-256 of each file of a version, by its name; empty where there is no such volume yet."""
    with platform.client() as client:
        answer = client.get(f"/v1/storage/volumes/{volume}/versions/{version}/files", params={"limit": 10_000})
    if answer.status_code == 404:
        return {}
    assert answer.status_code == 200, answer.text
    return {each["name"]: each["sha256"] for each in answer.json()["data"]}


def described(platform: PlatformProcess, volume: str) -> dict[str, Any]:
    """A volume as it is."""
    with platform.client() as client:
        answer: dict[str, Any] = client.get(f"/v1/storage/volumes/{volume}").json()
    return answer


def create(platform: PlatformProcess, volume: str, folder: Path) -> dict[str, Any]:
    """`jig volumes create`, to its end."""
    document: dict[str, Any] = json.loads(
        platform.jig("volumes", "create", volume, folder, "--json", cwd=platform.folder).stdout
    )
    return document


def test_a_killed_upload_goes_on_with_what_is_missing(platform: PlatformProcess, source: Path) -> None:
    jig = start(platform, "volumes", "create", "words", source)
    wait_for(lambda: len(stored(platform, "words")) >= FILES // 10, "some files have arrived")
    jig.kill()
    end(jig)
    arrived = len(stored(platform, "words"))
    assert described(platform, "words")["sealed_at"] is None
    document = create(platform, "words", source)
    # What was on its way when jig was killed may have arrived later.
    assert document["sent_files"] <= FILES - arrived
    assert stored(platform, "words") == digests(source)
    assert described(platform, "words")["sealed_at"]


def test_a_killed_upload_in_parts_goes_on_with_the_same_upload(
    platform: PlatformProcess, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "large"
    write(folder / "model.bin", os.urandom(MIB))
    os.truncate(folder / "model.bin", 300 * MIB)
    jig = start(platform, "volumes", "create", "model", folder)
    journals = cache / "jig" / "uploads"
    wait_for(lambda: any(len(each.read_text().splitlines()) > 1 for each in journals.glob("*")), "a part has arrived")
    jig.send_signal(signal.SIGINT)
    code, said = end(jig)
    if code == 0:
        pytest.fail("the upload was over before it could be interrupted: make the file larger")
    assert code == 130, said
    assert "To go on, run the same command again" in said
    (journal,) = journals.iterdir()
    upload_id = json.loads(journal.read_text().splitlines()[0])["upload_id"]
    create(platform, "model", folder)
    assert stored(platform, "model") == digests(folder)
    assert not list(journals.iterdir())
    (facts,) = platform.data_dir.rglob("*.facts")
    assert facts.name == f"{upload_id}.facts"


def test_an_upload_outlives_a_platform_that_is_killed(platform: PlatformProcess, source: Path) -> None:
    jig = start(platform, "volumes", "create", "words", source)
    wait_for(lambda: len(stored(platform, "words")) >= FILES // 10, "some files have arrived")
    platform.kill()
    platform.start()
    code, said = end(jig)
    assert code == 0, said
    assert stored(platform, "words") == digests(source)


def test_two_clients_with_one_folder_make_one_volume(platform: PlatformProcess, source: Path) -> None:
    both = [start(platform, "volumes", "create", "words", source) for _ in range(2)]
    ended = [end(jig) for jig in both]
    assert 0 in [code for code, _ in ended], ended
    assert stored(platform, "words") == digests(source)
    assert described(platform, "words")["current_version"] == 0


def test_two_clients_with_two_folders_make_no_mixture(platform: PlatformProcess, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for number in range(FILES):
        write(other / f"{number % 10}" / f"{number:04}.txt", os.urandom(FILE_BYTES))
    both = [start(platform, "volumes", "create", "words", folder) for folder in (source, other)]
    ended = [end(jig) for jig in both]
    whole = [digests(source), digests(other)]
    if described(platform, "words")["sealed_at"]:
        assert stored(platform, "words") in whole
    for folder, (code, said) in zip(whole, ended, strict=True):
        if code == 0:
            assert stored(platform, "words") == folder
        else:
            assert any(each in said for each in REFUSALS), said
    # Whoever was refused is told of a way that works: the next version, or a new beginning where neither ended.
    if not described(platform, "words")["sealed_at"]:
        platform.jig("volumes", "delete", "words", "--yes", cwd=platform.folder)
        create(platform, "words", source)
    made = platform.jig("volumes", "update", "words", other, "--json", cwd=platform.folder)
    assert stored(platform, "words", json.loads(made.stdout)["volume"]["version"]) == digests(other)


def test_an_update_sends_what_is_new_alone(platform: PlatformProcess, source: Path) -> None:
    create(platform, "words", source)
    write(source / "new.txt", b"new")
    (source / "0" / "0000.bin").rename(source / "renamed.bin")
    (source / "1" / "0001.bin").unlink()
    updated = platform.jig("volumes", "update", "words", source, "--json", cwd=platform.folder)
    document = json.loads(updated.stdout)
    assert (document["sent_files"], document["sent_bytes"]) == (1, 3)
    assert document["linked_files"] == FILES - 1
    assert stored(platform, "words", 1) == digests(source)
    again = json.loads(platform.jig("volumes", "update", "words", source, "--json", cwd=platform.folder).stdout)
    assert again["volume"]["version"] == 1


def test_a_volume_is_described_and_deleted(platform: PlatformProcess, source: Path) -> None:
    create(platform, "words", source)
    assert "400, 25.0 MiB" in platform.jig("volumes", "describe", "words", cwd=platform.folder).stdout
    assert "words" in platform.jig("volumes", "list", cwd=platform.folder).stdout
    refused = platform.jig("volumes", "create", "words", source, cwd=platform.folder, check=False)
    assert refused.returncode == 1
    assert "jig volumes update words" in refused.stderr
    platform.jig("volumes", "delete", "words", "--yes", cwd=platform.folder)
    assert "No volumes." in platform.jig("volumes", "list", cwd=platform.folder).stdout
