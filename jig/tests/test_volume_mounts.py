"""What `jig deploy` and `jig status` say of the volumes that a deployment mounts."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_platform import FakePlatform
from fake_volumes import FakeVersion
from jig_process import Jig

from jig.commands.deployments import preload_text

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
CONFIG = 'name = "hello"\nworker = "worker:Hello"\n'
MOUNT = '[[deploy.volume_mounts]]\nname = "words"\nmount_path = "/words"\n'


@pytest.fixture
def mounting(project: Path, platform: FakePlatform) -> Path:
    """A project that mounts a volume of two versions."""
    (project / "jig.toml").write_text(CONFIG + MOUNT)
    platform.volumes.put(platform, "words", {"a": b"a"}, {"a": b"b"})
    return project


def test_the_latest_version_is_mounted_and_said(jig: Jig, platform: FakePlatform, mounting: Path) -> None:
    finished = jig("deploy")
    assert finished.code == 0, finished.err
    assert "words version 1, the latest" in finished.err
    assert platform.deployments["hello"]["volumes"] == [{"name": "words", "mount_path": "/words"}]


def test_a_deployment_keeps_its_version_and_jig_says_how_to_change_that(
    jig: Jig, platform: FakePlatform, mounting: Path
) -> None:
    platform.deploy("hello")
    platform.deployments["hello"]["volumes"] = [{"name": "words", "mount_path": "/words", "version": 0}]
    finished = jig("deploy")
    assert "words version 0, as before" in finished.err
    assert "To mount the latest, write under deploy.volume_mounts: version = 1 for words" in finished.err


def test_a_version_of_the_config_is_mounted(jig: Jig, platform: FakePlatform, mounting: Path) -> None:
    (mounting / "jig.toml").write_text(CONFIG + MOUNT + "version = 0\n")
    finished = jig("deploy")
    assert finished.code == 0, finished.err
    assert "words version 0 " in finished.err
    assert platform.deployments["hello"]["volumes"] == [{"name": "words", "mount_path": "/words", "version": 0}]


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (FakeVersion(status="syncing"), "Version 2 of the volume words is still being fetched."),
        (
            FakeVersion(status="pending", origin={"s3": {"uri": "s3://bucket/words"}}),
            "Version 2 of the volume words has no files yet.",
        ),
        (FakeVersion(), "Version 2 of the volume words is open: its upload was never finished."),
        (
            FakeVersion(status="failed", status_message="The bucket is empty."),
            "Version 2 of the volume words cannot be mounted: The bucket is empty.",
        ),
    ],
    ids=["syncing", "pending", "open", "failed"],
)
def test_what_cannot_be_mounted_is_said_before_anything_is_built(
    jig: Jig, platform: FakePlatform, mounting: Path, version: FakeVersion, said: str
) -> None:
    platform.volumes.versions["words"].append(version)
    finished = jig("deploy")
    assert finished.code == 1
    assert said in finished.err
    assert not platform.blobs
    assert not platform.deployments


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (
            MOUNT.replace("words", "wrods"),
            "There is no volume wrods.\nDid you mean words?\nTo make it: jig volumes create wrods SOURCE",
        ),
        (MOUNT + "version = 7\n", "The volume words has no version 7: it has versions 0 to 1."),
    ],
    ids=["no volume", "no version"],
)
def test_what_does_not_exist_is_said_before_anything_is_built(
    jig: Jig, platform: FakePlatform, mounting: Path, mount: str, said: str
) -> None:
    (mounting / "jig.toml").write_text(CONFIG + mount)
    finished = jig("deploy")
    assert finished.code == 1
    assert said in finished.err
    assert not platform.blobs


@pytest.mark.parametrize(("version", "command"), [(0, "create"), (1, "update")])
def test_an_upload_that_was_never_finished_is_not_mounted(
    jig: Jig, platform: FakePlatform, mounting: Path, version: int, command: str
) -> None:
    del platform.volumes.versions["words"][version + 1 :]
    platform.volumes.versions["words"][version].sealed_at = None
    finished = jig("deploy")
    assert finished.code == 1
    assert f"Version {version} of the volume words is open: its upload was never finished." in finished.err
    assert f"Run `jig volumes {command} words SOURCE` again" in finished.err
    assert not platform.blobs


def test_an_image_is_built_without_its_volumes(jig: Jig, platform: FakePlatform, mounting: Path) -> None:
    platform.volumes.versions.clear()
    assert jig("deploy", "--build-only").code == 0


def test_status_shows_volumes_and_how_far_replicas_are_with_them(jig: Jig, platform: FakePlatform) -> None:
    platform.deploy("hello")
    platform.deployments["hello"]["volumes"] = [{"name": "words", "mount_path": "/words", "version": 3}]
    assert "VOLUMES" not in jig("status", "hello").out
    platform.rollout[:] = [
        {
            "replica_status": "Waiting",
            "volume_preload_status": "Completed",
            "volume_preload_started_at": "2026-01-01T00:00:00Z",
            "volume_preload_completed_at": "2026-01-01T00:00:04Z",
        }
    ]
    shown = jig("status", "hello").out
    assert "words version 3 at /words" in shown
    assert "loaded in 4.0 s" in shown


@pytest.mark.parametrize(
    ("status", "text"),
    [(None, "-"), ("InProgress", "loading, 1 min 00 s"), ("Completed", "loaded in 3.0 s"), ("Failed", "failed")],
)
def test_a_preload_is_said_in_a_few_words(status: str | None, text: str) -> None:
    event = {
        "volume_preload_status": status,
        "volume_preload_started_at": "2026-01-01T00:00:00Z",
        "volume_preload_completed_at": "2026-01-01T00:00:03Z" if status == "Completed" else None,
    }
    assert preload_text(event, NOW) == text
