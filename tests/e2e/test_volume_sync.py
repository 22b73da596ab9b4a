"""A volume that is copied from an object storage: a server that is killed in the middle goes on when it comes back."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from object_storage import ObjectStorage
from platform_process import PlatformProcess, wait_for

VOLUME = "/v1/storage/volumes/weights"
FILES = {f"part-{number:02}.bin": random.Random(number).randbytes(3 * 1024 * 1024) for number in range(40)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PlatformProcess]:
    server = PlatformProcess(tmp_path)
    server.start()
    yield server
    server.close()


def test_a_kill_in_the_middle_of_a_copy_costs_what_was_under_way(
    server: PlatformProcess, objects: ObjectStorage
) -> None:
    place = objects.make_place()
    for name, data in FILES.items():
        objects.client.put_object(Bucket=place.bucket, Key=place.prefix + name, Body=data)
    value = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "canary-of-the-keys"}
    with server.client() as api:
        secret = {"name": "s3-keys", "value": json.dumps(value | {"endpoint_url": objects.endpoint})}
        assert api.post("/v1/secrets", json=secret).status_code == 200
        origin = {"s3": {"uri": str(place), "credentials_secret": "s3-keys"}}
        body = {"name": "weights", "type": "readOnly", "content": {"type": "files", "origin": origin}}
        assert api.post("/v1/storage/volumes", json=body).status_code == 200

        def begun() -> dict[str, Any] | None:
            seen: dict[str, Any] = api.get(VOLUME).json()
            assert seen["status"] in {"pending", "syncing"}, seen["status_message"]
            return seen if seen["content"]["files"] else None

        before = wait_for(begun, "files come")
    server.kill()
    server.start()
    with server.client() as api:

        def ready() -> dict[str, Any] | None:
            seen: dict[str, Any] = api.get(VOLUME).json()
            assert seen["status"] in {"syncing", "ready"}, seen["status_message"]
            return seen if seen["status"] == "ready" else None

        after = wait_for(ready, "the copy ends")
        assert "canary" not in json.dumps(after)
    assert "canary" not in server.log.read_text()
    files = {file["name"]: file for file in after["content"]["files"]}
    assert {name: file["sha256"] for name, file in files.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()
    }
    for file in before["content"]["files"]:
        assert files[file["name"]] == file, "what was there was not copied again"
    blobs = [path for path in (server.data_dir / "blobs" / "files").rglob("*") if path.is_file()]
    assert len(blobs) <= len(FILES) + 4, "the sweep removes what was under way"
