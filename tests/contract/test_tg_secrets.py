"""`tg beta jig secrets` of the `together` package, unmodified."""

import json
from pathlib import Path

import httpx
import pytest

from contract.tg_command import Outside, Tg
from platform_process import PlatformProcess

# Each command takes the client a second or two to load.
pytestmark = pytest.mark.timeout(300)

NAME = "contract-vault"


@pytest.fixture
def tg(platform: PlatformProcess, outside: Outside, project: Path) -> Tg:
    return Tg(platform, project, NAME, outside)


def kept(tg: Tg) -> dict[str, str]:
    secrets: dict[str, str] = json.loads((tg.folder / ".jig.json").read_text())[NAME]["secrets"]
    return secrets


def test_set_list_unset_and_delete(tg: Tg, api: httpx.Client) -> None:
    made = tg("secrets", "set", "--name", "TOKEN", "--value", "one", "--description", "a token")
    assert (made.status, "Created secret TOKEN" in made.output) == (0, True), made.output + made.errors
    changed = tg("secrets", "set", "--name", "TOKEN", "--value", "two", "--ttl", "7d")
    assert changed.status == 0, changed.output
    assert "Updated secret TOKEN" in changed.output
    assert "will expire and be permanently deleted" in changed.output

    secret = api.get(f"/v1/deployments/secrets/{NAME}-TOKEN").json()
    assert (secret["ttl_seconds"], secret["description"]) == (7 * 86_400, "")
    assert kept(tg) == {"TOKEN": f"{NAME}-TOKEN"}
    assert "TOKEN [synced]" in tg("secrets", "list").output
    listed = tg("secrets", "list", "--json").json["data"]
    assert [each["object"] for each in listed if each["name"] == f"{NAME}-TOKEN"] == ["secret"]

    assert tg("secrets", "unset", "--name", "TOKEN").status == 0
    assert kept(tg) == {}
    assert "TOKEN [remote only]" in tg("secrets", "list").output
    deleted = tg("secrets", "delete", "--name", "TOKEN")
    assert "Deleted secret TOKEN" in deleted.output
    assert api.get(f"/v1/secrets/{NAME}-TOKEN").status_code == 404


def test_a_deploy_gives_the_secret_to_the_worker_and_warns_of_its_end(
    tg: Tg, platform: PlatformProcess, api: httpx.Client, image: str
) -> None:
    assert tg("secrets", "set", "--name", "SESAME", "--value", "open", "--ttl", "2d").status == 0
    deployed = tg("deploy", "--image", image)
    assert deployed.status == 0, deployed.output
    assert "Secret SESAME used by this deployment will expire" in deployed.output

    assert platform.finished(NAME, platform.submit(NAME, {"variable": "SESAME"}))["outputs"] == {"value": "open"}
    [variable] = [v for v in platform.deployment(NAME)["environment_variables"] if v["name"] == "SESAME"]
    assert variable["value_from_secret"] == f"{NAME}-SESAME"
    assert variable["value_from_secret_expires_at"] == api.get(f"/v1/secrets/{NAME}-SESAME").json()["expires_at"]
    assert "SESAME" in tg("status").output

    # A fresh checkout takes the secrets over from the deployment.
    (tg.folder / ".jig.json").unlink()
    assert tg("secrets", "unset", "--name", "SESAME").status == 0
    assert tg("deploy", "--image", image).status == 0
    assert platform.finished(NAME, platform.submit(NAME, {"variable": "SESAME"}))["outputs"] == {"value": None}
    assert tg("destroy").status == 0
    assert tg("secrets", "delete", "--name", "SESAME").status == 0


def test_jig_and_tg_share_what_they_remember(tg: Tg, platform: PlatformProcess) -> None:
    project = tg.folder
    (project / "value").write_text("shared\n")

    platform.jig("secrets", "set", "SHARED", "--file", "value", cwd=project)
    assert "SHARED [synced]" in tg("secrets", "list").output
    assert tg("secrets", "set", "--name", "OTHER", "--value", "x").status == 0
    listed = json.loads(platform.jig("secrets", "list", "--json", cwd=project).stdout)["data"]
    assert {each["variable"] for each in listed} == {"SHARED", "OTHER"}
    for name in ("SHARED", "OTHER"):
        platform.jig("secrets", "delete", name, "--yes", cwd=project)
    assert kept(tg) == {}
