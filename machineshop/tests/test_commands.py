"""What the commands beside a server print."""

import asyncio
import json
from pathlib import Path

import pytest

from factory import connected
from machineshop.app import Platform
from machineshop.commands.projects import create_project
from machineshop.commands.secrets import rotate


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_rotation_says_how_many_secrets_were_sealed_anew(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    async with connected(platform, platform.admin_key) as client:
        for name in ("first", "second")[:number]:
            answer = await client.post("/v1/deployments/secrets", json={"name": name, "value": "hidden"})
            assert answer.status_code == 200, answer.text
    await asyncio.to_thread(rotate, data_dir=tmp_path / "data")
    first, second = capsys.readouterr().out.splitlines()
    said = {0: "0 were sealed anew", 1: "1 was sealed anew", 2: "2 were sealed anew"}[number]
    assert first.startswith("secrets are sealed with the key ")
    assert first.endswith(f" now; {said}")
    assert second == f"Back up {tmp_path / 'data' / 'secrets-key'}."


async def test_a_project_that_is_made_is_named_with_its_organization(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.admin_key, "a server runs beside it"
    folder = tmp_path / "data"
    await asyncio.to_thread(create_project, "vision", data_dir=folder)
    await asyncio.to_thread(create_project, "sound", organization="vision", data_dir=folder)
    assert capsys.readouterr().out.splitlines() == [
        "vision is made, in organization vision",
        "sound is made, in organization vision",
    ]
    await asyncio.to_thread(
        create_project, "speech", name="Speech", organization="vision", data_dir=tmp_path / "data", as_json=True
    )
    made = json.loads(capsys.readouterr().out)
    assert made == {"id": made["id"], "slug": "speech", "name": "Speech", "organization": "vision"}
