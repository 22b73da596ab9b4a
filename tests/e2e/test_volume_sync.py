"""A volume that is copied from an object storage: a server that is killed in the middle goes on when it comes back."""

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from machineshop.config import StorageUrl
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
    place = put_files(objects)
    with server.client() as api:
        content = make_volume(api, objects, place)

        def begun() -> dict[str, Any] | None:
            seen: dict[str, Any] = api.get(VOLUME).json()
            assert seen["status"] in {"pending", "syncing"}, seen["status_message"]
            return seen if seen["content"]["files"] else None

        before = wait_for(begun, "files come")
    server.kill()
    server.start()
    with server.client() as api:
        after = ready(api)
        assert "canary" not in json.dumps(after)
    assert "canary" not in server.log.read_text()
    files = {file["name"]: file for file in after["content"]["files"]}
    assert {name: file["sha256"] for name, file in files.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()
    }
    for file in before["content"]["files"]:
        assert files[file["name"]] == file, "what was there was not copied again"
    before_it = blobs(server)
    assert len(before_it) <= len(FILES) + 4, "the sweep removes what was under way"

    # The next version shares all bytes but those of the one object that has changed.
    objects.client.put_object(Bucket=place.bucket, Key=f"{place.prefix}part-07.bin", Body=b"changed")
    with server.client() as api:
        assert api.patch(VOLUME, json={"content": content}).status_code == 200
        next_one = ready(api)
        assert api.get("/v1/storage/weights/1/part-07.bin").content == b"changed"
        assert api.get("/v1/storage/weights/1/part-08.bin").content == FILES["part-08.bin"]
    assert (next_one["version"], next_one["content"]["files_count"]) == (1, len(FILES))
    assert len(blobs(server) - before_it) == 1


def put_files(objects: ObjectStorage) -> StorageUrl:
    place = objects.make_place()
    for name, data in FILES.items():
        objects.client.put_object(Bucket=place.bucket, Key=place.prefix + name, Body=data)
    return place


def make_volume(api: httpx.Client, objects: ObjectStorage, place: StorageUrl) -> dict[str, Any]:
    """A volume that is copied from there; returns what the next version may be made of."""
    keys = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "canary-of-the-keys"}
    secret = {"name": "s3-keys", "value": json.dumps(keys | {"endpoint_url": objects.endpoint})}
    assert api.post("/v1/secrets", json=secret).status_code == 200
    content = {"type": "files", "origin": {"s3": {"uri": str(place), "credentials_secret": "s3-keys"}}}
    body = {"name": "weights", "type": "readOnly", "content": content}
    assert api.post("/v1/storage/volumes", json=body).status_code == 200
    return content


def ready(api: httpx.Client) -> dict[str, Any]:
    """The volume, once its current version is copied."""

    def seen() -> dict[str, Any] | None:
        volume: dict[str, Any] = api.get(VOLUME).json()
        assert volume["status"] in {"pending", "syncing", "ready"}, volume["status_message"]
        return volume if volume["status"] == "ready" else None

    return wait_for(seen, "the copy ends")


def blobs(server: PlatformProcess) -> set[Path]:
    return {path for path in (server.data_dir / "blobs" / "files").rglob("*") if path.is_file()}
