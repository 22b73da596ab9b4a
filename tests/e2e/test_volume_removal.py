"""A volume of many files that is deleted: a server that is killed in the middle goes on when it comes back."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_process import PlatformProcess, wait_for

VOLUME = "/v1/storage/volumes/weights"
BATCHES, BATCH = 10, 400


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PlatformProcess]:
    server = PlatformProcess(tmp_path)
    server.start()
    yield server
    server.close()


def batch(number: int) -> bytes:
    files = {f"{number}-{each}": b"%d-%d" % (number, each) for each in range(BATCH)}
    claims = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
    ]
    return json.dumps({"files": claims}).encode() + b"\n" + b"".join(files.values())


def test_a_kill_in_the_middle_of_a_removal_leaves_nothing_behind(server: PlatformProcess) -> None:
    blobs = server.data_dir / "blobs" / "files"

    def count() -> int:
        return sum(path.is_file() for path in blobs.rglob("*"))

    with server.client() as api:
        body = {"name": "weights", "type": "readOnly", "content": {"type": "files", "source_prefix": "weights/0"}}
        assert api.post("/v1/storage/volumes", json=body).status_code == 200
        for number in range(BATCHES):
            assert api.put(f"{VOLUME}/versions/0/files", content=batch(number)).status_code == 200
        assert count() == BATCHES * BATCH
        assert api.delete(VOLUME).status_code == 200
        wait_for(lambda: count() < BATCHES * BATCH, "the first are removed")
    server.kill()
    left = count()
    assert left > 0, "it was to be killed in the middle"
    server.start()
    with server.client() as api:
        assert api.get(VOLUME).status_code == 404
        assert api.get("/v1/storage/weights/0/9-399").status_code == 404
    wait_for(lambda: count() == 0, f"the {left} that are left are removed")
