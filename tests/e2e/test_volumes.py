"""Volumes from a folder of somebody's to the replicas that read them, with jig and the real server."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machineshop.runtime.views import try_out
from object_storage import ObjectStorage
from platform_process import PlatformProcess, wait_for, write_worker

READER = """
import os, pathlib, sprocket

class Worker(sprocket.Sprocket):
    def setup(self):
        self.at_start = pathlib.Path("/machineshop-test-words/list.txt").read_text()

    def predict(self, args):
        root = pathlib.Path("/machineshop-test-words")
        try:
            (root / "new.txt").write_text("mine")
            written = "written"
        except OSError as error:
            written = error.strerror
        files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
        inode = os.stat(root / "list.txt").st_ino
        return {"at_start": self.at_start, "files": files, "written": written, "inode": inode}
"""
MOUNT = """
[[deploy.volume_mounts]]
name = "words"
mount_path = "/machineshop-test-words"
"""
FIRST = {"list.txt": "apple", "more/rare.txt": "quince"}


@pytest.fixture(autouse=True)
def views() -> None:
    if (why_not := try_out()) is not None:
        pytest.skip(why_not)


@pytest.fixture
def bucket_platform(tmp_path: Path, objects: ObjectStorage) -> Iterator[PlatformProcess]:
    process = PlatformProcess(tmp_path, "--volume-cache-gib", "0.001")
    process.environment |= objects.environment | {"MACHINESHOP_STORAGE_URL": str(objects.make_place())}
    process.start()
    yield process
    process.close()


def write_files(folder: Path, files: dict[str, str]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def seen(platform: PlatformProcess) -> dict[str, Any]:
    job = platform.finished("reader", platform.submit("reader", {}))
    assert job["status"] == "done", job
    outputs: dict[str, Any] = job["outputs"]
    return outputs


def events(platform: PlatformProcess) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = platform.deployment("reader")["replica_events"]
    return [event for event in found.values() if event["replica_status"] != "Terminated"]


def test_replicas_read_the_version_that_was_deployed_and_the_next_one_after_the_next_deploy(
    own_platform: PlatformProcess, tmp_path: Path
) -> None:
    words = write_files(tmp_path / "words", FIRST)
    own_platform.jig("volumes", "create", "words", words, cwd=tmp_path)
    own_platform.deploy(write_worker(tmp_path / "reader", "reader", READER, tables=MOUNT))
    first = seen(own_platform)
    assert (first["files"], first["at_start"], first["written"]) == (FIRST, "apple", "Read-only file system")
    (event,) = events(own_platform)
    assert event["volume_preload_status"] == "Completed"
    assert event["volume_preload_started_at"] <= event["volume_preload_completed_at"] <= event["replica_ready_since"]
    stored = {path.stat().st_ino for path in (own_platform.data_dir / "blobs/files").rglob("*")}
    assert first["inode"] in stored, "the platform's own bytes under another name"

    second = {"list.txt": "pear", "more/rare.txt": "quince"}
    own_platform.jig("volumes", "update", "words", write_files(words, second), cwd=tmp_path)
    assert seen(own_platform)["files"] == FIRST, "a new version changes nothing by itself"
    own_platform.deploy(write_worker(tmp_path / "reader", "reader", READER, tables=f"{MOUNT}version = 1\n"))
    assert seen(own_platform)["files"] == second

    own_platform.kill()
    own_platform.start()
    assert seen(own_platform)["files"] == second, "the replica was adopted, and its volume with it"
    own_platform.jig("rollback", cwd=tmp_path / "reader")
    wait_for(lambda: seen(own_platform)["files"] == FIRST, "the old version is back")
    assert not Path("/machineshop-test-words").exists()


def test_files_in_a_bucket_are_copied_within_the_bound(bucket_platform: PlatformProcess, tmp_path: Path) -> None:
    words = write_files(tmp_path / "words", FIRST)
    bucket_platform.jig("volumes", "create", "words", words, cwd=tmp_path)
    bucket_platform.deploy(write_worker(tmp_path / "reader", "reader", READER, tables=MOUNT))
    assert seen(bucket_platform)["files"] == FIRST
    copies = bucket_platform.data_dir / "runtime/volumes/copies"
    assert sorted(path.read_text() for path in copies.rglob("*") if path.is_file()) == ["apple", "quince"]

    large = write_files(tmp_path / "large", {"list.txt": "x" * 2_000_000})
    bucket_platform.jig("volumes", "update", "words", large, cwd=tmp_path)
    folder = write_worker(tmp_path / "reader", "reader", READER, tables=f"{MOUNT}version = 1\n")
    bucket_platform.jig("deploy", "--detach", cwd=folder)
    failed = wait_for(
        lambda: [e for e in events(bucket_platform) if e["volume_preload_status"] == "Failed"], "it fails"
    )
    assert failed[0]["replica_status_reason"] == "FailedMount"
    assert "Volumes may take 0.001 GiB on this machine" in failed[0]["replica_status_message"]
    assert "--volume-cache-gib" in failed[0]["replica_status_message"]
    assert seen(bucket_platform)["files"] == FIRST, "the old replica serves on"


def test_a_deleted_volume_takes_no_space_any_more(own_platform: PlatformProcess, tmp_path: Path) -> None:
    own_platform.jig("volumes", "create", "words", write_files(tmp_path / "words", FIRST), cwd=tmp_path)
    trees = own_platform.data_dir / "runtime/volumes/trees"
    wait_for(lambda: list(trees.glob("*/ready.json")), "its tree is made, before anything mounts it")
    own_platform.jig("volumes", "delete", "words", "--yes", cwd=tmp_path)
    wait_for(lambda: not list(trees.iterdir()), "its tree is gone")
    assert not [path for path in (own_platform.data_dir / "blobs/files").rglob("*") if path.is_file()]
