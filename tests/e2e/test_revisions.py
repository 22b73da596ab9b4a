"""Going back: by hand, and by itself where a revision does not get ready."""

import json
from pathlib import Path

import pytest

from platform_process import PlatformProcess, wait_for, write_worker

WORKER = """
import sprocket

class Worker(sprocket.Sprocket):
    def setup(self):
        {setup}

    def predict(self, args):
        return {{"version": {version}}}
"""
NAME = "reviser"


@pytest.fixture
def folder(platform: PlatformProcess, tmp_path: Path) -> Path:
    folder = _write(tmp_path / NAME, 1)
    platform.jig("deploy", cwd=folder)
    return folder


def _write(folder: Path, version: int, setup: str = "pass") -> Path:
    return write_worker(folder, NAME, WORKER.format(setup=setup, version=version))


def _version(platform: PlatformProcess) -> int:
    job = platform.finished(NAME, platform.submit(NAME, {}))
    version: int = job["outputs"]["version"]
    return version


def test_the_way_back_by_hand_and_by_itself(platform: PlatformProcess, folder: Path) -> None:
    wait_for(lambda: _ready(platform, folder, 0), "the first revision is known to work")
    platform.jig("deploy", cwd=_write(folder, 2))
    assert _version(platform) == 2

    back = platform.jig("rollback", cwd=folder)
    assert "goes back to revision 1 (" in back.stdout + back.stderr
    wait_for(lambda: _version(platform) == 1, "the first revision works again")
    diff = platform.jig("revisions", "diff", "1", "2", cwd=folder).stdout
    assert "- image: " in diff
    assert "+ image: " in diff

    broken = _write(folder, 3, setup='raise ValueError("no such model")')
    failed = platform.jig("deploy", "--rollback-on-failure", cwd=broken, check=False)
    assert failed.returncode == 1
    assert "CrashLoopBackOff" in failed.stderr or "crashes again and again" in failed.stderr
    assert "The platform went back to revision 1 (" in failed.stderr
    assert "sprocket/engine.py" not in failed.stderr
    assert failed.stderr.count("Traceback") == 1
    wait_for(lambda: platform.deployment(NAME)["revision_number"] == 1, "the platform has gone back", 60)
    assert _version(platform) == 1
    failure = platform.deployment(NAME)["last_failure"]
    assert (failure["revision_number"], failure["rolled_back"]) == (3, True)
    assert any("no such model" in line for line in failure["log"])

    listed = platform.jig("revisions", cwd=folder).stdout
    assert "failed: CrashLoopBackOff, rolled back" in listed
    active = platform.deployment(NAME)["revision_id"]
    assert f"1 ({active[-8:]}) *" in listed
    assert "no such model" in platform.jig("revisions", "show", "3", cwd=folder).stdout
    platform.jig("destroy", "--yes", cwd=folder)


def _ready(platform: PlatformProcess, folder: Path, number: int) -> bool:
    with platform.client() as client:
        events = client.get(f"/v1/deployments/{NAME}/revisions").json()["data"]
    return bool(events[number]["ready_at"])


def test_a_deploy_that_changes_nothing_is_not_recorded(own_platform: PlatformProcess, tmp_path: Path) -> None:
    def recorded() -> list[str]:
        events = json.loads(own_platform.jig("audit", "--json", cwd=tmp_path).stdout)["data"]
        return [event["action"] for event in events]

    folder = _write(tmp_path / NAME, 1)
    own_platform.deploy(folder)
    first = recorded()
    assert {"image.push", "deployment.create"} <= set(first)
    own_platform.deploy(folder)
    assert recorded() == first
    own_platform.deploy(_write(folder, 2))
    assert sorted(recorded()) == sorted([*first, "image.push", "deployment.update"])
