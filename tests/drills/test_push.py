"""Pushes whose disk fills up."""

import os
from pathlib import Path

import httpx

from platform_process import PlatformProcess, wait_for
from pusher import digest_of

MIB = 1024 * 1024


def test_a_push_that_fills_the_disk_is_refused_and_leaves_no_trace(small_disk: Path) -> None:
    process = PlatformProcess(small_disk)
    process.start()
    try:
        with process.client() as client:
            kept = _push(client, b"pushed before")
            room = os.statvfs(small_disk)
            filler = small_disk / "filler"
            filler.write_bytes(b"\0" * (room.f_bavail * room.f_frsize - 20 * MIB))
            layer = os.urandom(MIB) * 40
            refused = client.post(
                "/v2/default/model/blobs/uploads/", params={"digest": digest_of(layer)}, content=layer
            )
            assert refused.status_code == 507
            assert "disk is full" in refused.json()["errors"][0]["message"]
            started = client.post("/v2/default/model/blobs/uploads/").headers["location"]
            assert client.patch(started, content=layer).status_code == 507
            assert client.get(started).status_code == 404, "what is there of it cannot be gone on with"

            assert client.get(f"/v2/default/model/blobs/{kept}").content == b"pushed before"
            assert client.head(f"/v2/default/model/blobs/{digest_of(layer)}").status_code == 404
            assert wait_for(lambda: not _files(process.data_dir / "uploads"), "nothing is left of the uploads")
            filler.unlink()
            assert client.get(f"/v2/default/model/blobs/{_push(client, layer)}").content == layer
    finally:
        process.close()


def _push(client: httpx.Client, content: bytes) -> str:
    answer = client.post("/v2/default/model/blobs/uploads/", params={"digest": digest_of(content)}, content=content)
    assert answer.status_code == 201, answer.text
    return digest_of(content)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
