"""`tg beta jig volumes` of the `together` package, unmodified."""

import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest

from contract.tg_command import Outside, Tg
from platform_process import PlatformProcess

# Each command takes the client a second or two to load.
pytestmark = pytest.mark.timeout(300)

NAME = "contract-volumes"
# Files of a MiB and more go in parts of one.
IN_PARTS = {"TOGETHER_MULTIPART_THRESHOLD_MB": "1", "TOGETHER_MULTIPART_CHUNK_SIZE_MB": "1"}
LARGE = bytes(range(256)) * 4096 * 3 + b"the rest"
VOLUMES = "/v1/deployments/storage/volumes"


@pytest.fixture
def tg(platform: PlatformProcess, outside: Outside, project: Path) -> Tg:
    return Tg(platform, project, NAME, outside, "min_replicas = 0\nmax_replicas = 1\n")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a model has: small files, a folder, and one that goes in parts."""
    folder = tmp_path / "weights"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer" / "words with spaces.txt").write_text("a b")
    (folder / "empty").touch()
    (folder / "model.bin").write_bytes(LARGE)
    return folder


def files_of(volume: dict[str, object]) -> dict[str, int]:
    content = volume["content"]
    assert isinstance(content, dict)
    return {file["name"]: file["size"] for file in content["files"]}


def test_create_update_describe_list_and_delete(tg: Tg, api: httpx.Client, source: Path) -> None:
    made = tg("volumes", "create", "--name", "weights", "--source", str(source), **IN_PARTS)
    assert (made.status, "Upload completed" in made.output) == (0, True), made.output + made.errors

    described = tg("volumes", "describe", "--name", "weights").json
    assert (described["status"], described["current_version"]) == ("ready", 0)
    sizes = {"config.json": 2, "empty": 0, "model.bin": len(LARGE), "tokenizer/words with spaces.txt": 3}
    assert files_of(described) == sizes
    assert described["sealed_at"], "the client's prewarm has sealed it"
    assert api.get("/v1/storage/weights/0/model.bin").content == LARGE
    taken = tg("volumes", "create", "--name", "weights", "--source", str(source))
    assert taken.status != 0
    assert "already exists, use 'jig volumes update' instead" in taken.output + taken.errors

    (source / "config.json").write_text('{"new": 1}')
    updated = tg("volumes", "update", "--name", "weights", "--source", str(source), **IN_PARTS)
    assert (updated.status, "Volume updated successfully" in updated.output) == (0, True), updated.output
    described = tg("volumes", "describe", "--name", "weights").json
    assert (described["current_version"], list(described["version_history"])) == (1, ["0"])
    older = tg("volumes", "describe", "--name", "weights", "--volume-version", "0").json
    assert files_of(older)["config.json"] == 2
    assert re.search(r"weights\W+1\W+ready", tg("volumes", "list").output)

    assert "Deleted volume weights" in tg("volumes", "delete", "--name", "weights").output
    assert "not found" in tg("volumes", "describe", "--name", "weights").output
    assert "not found" in tg("volumes", "update", "--name", "weights", "--source", str(source)).output
    assert "not found" in tg("volumes", "delete", "--name", "weights").output
    assert api.get("/v1/storage/weights/0/model.bin").status_code == 404


def test_an_upload_that_fails_leaves_no_volume(tg: Tg, api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    failed = tg("volumes", "create", "--name", "none", "--source", str(tmp_path / "nothing"))
    assert failed.status != 0
    assert "No files found" in failed.output + failed.errors
    assert api.get(f"{VOLUMES}/none").status_code == 404


def test_deploy_mounts_the_version_that_it_names(tg: Tg, api: httpx.Client, source: Path, image: str) -> None:
    assert tg("volumes", "create", "--name", "mounted", "--source", str(source)).status == 0
    config = tg.folder / "jig.toml"
    mounts = 'volume_mounts = [{ name = "mounted", mount_path = "/models" }]\n'
    config.write_text(config.read_text() + mounts)
    deployed = tg("deploy", "--detach", "--image", image)
    assert deployed.status == 0, deployed.output + deployed.errors
    shown = api.get(f"/v1/deployments/{NAME}").json()
    assert [(each["name"], each["mount_path"], each["version"]) for each in shown["volumes"]] == [
        ("mounted", "/models", 0)
    ]
    assert api.get(f"{VOLUMES}/mounted").json()["mounted_by"] == [shown["id"]]

    assert tg("volumes", "update", "--name", "mounted", "--source", str(source)).status == 0
    again = tg("deploy", "--detach", "--image", image)
    assert "using version 0" in again.output
    refused = tg("volumes", "delete", "--name", "mounted")
    assert refused.status != 0
    assert f"is mounted by '{NAME}'" in refused.output + refused.errors
    assert "Volume: mounted" in tg("status").output

    assert tg("destroy").status == 0
    assert tg("volumes", "delete", "--name", "mounted").status == 0


def test_what_is_not_uploaded_is_not_deployed(tg: Tg, api: httpx.Client, image: str) -> None:
    content = {"type": "files", "source_prefix": "empty/0"}
    made = api.post(VOLUMES, json={"name": "empty", "type": "readOnly", "content": content})
    assert made.status_code == 200
    config = tg.folder / "jig.toml"
    config.write_text(config.read_text() + 'volume_mounts = [{ name = "empty", mount_path = "/models" }]\n')
    refused = tg("deploy", "--detach", "--image", image)
    assert refused.status != 0
    assert "is still syncing" in refused.output + refused.errors
    assert api.delete(f"{VOLUMES}/empty").status_code == 200


def test_the_changes_of_volumes_are_on_record(tg: Tg, api: httpx.Client, source: Path) -> None:
    assert tg("volumes", "create", "--name", "recorded", "--source", str(source)).status == 0
    assert tg("volumes", "update", "--name", "recorded", "--source", str(source)).status == 0
    assert tg("volumes", "delete", "--name", "recorded").status == 0
    events = api.get("/v1/audit", params={"action": "volume", "limit": 100}).json()["data"]
    mine = [event["action"] for event in events if event["subject"] == "recorded"]
    assert mine == ["volume.delete", "volume.update", "volume.create"]
    assert hashlib.sha256(LARGE).hexdigest() not in json.dumps(events)
