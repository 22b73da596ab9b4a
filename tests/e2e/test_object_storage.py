"""Servers that share a Postgres and a bucket need no common directory; what is wrong with a bucket is said at once."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from object_storage import ObjectStorage
from platform_process import PlatformProcess, write_worker
from postgres_cluster import PostgresCluster

ADMIN_KEY = "an-admin-key-for-all-the-servers"
CONTENT = random.Random(9).randbytes(9 * 1024 * 1024)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
WRITER = """
import pathlib, sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        path = pathlib.Path("made.txt")
        path.write_text("made of " + pathlib.Path(args["file"]).read_text())
        return {"made": sprocket.FileOutput(path)}
"""


def make_server(folder: Path, objects: ObjectStorage, url: str, **environment: str) -> PlatformProcess:
    folder.mkdir()
    server = PlatformProcess(folder)
    server.environment |= objects.environment | {"MACHINESHOP_STORAGE_URL": url} | environment
    return server


@pytest.fixture
def two(objects: ObjectStorage, postgres: PostgresCluster, tmp_path: Path) -> Iterator[list[PlatformProcess]]:
    url, database_url = str(objects.make_place()), postgres.create_database()
    environment = {"MACHINESHOP_DATABASE_URL": database_url, "MACHINESHOP_ADMIN_KEY": ADMIN_KEY}
    servers = [make_server(tmp_path / name, objects, url, **environment) for name in ("a", "b")]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.close()


def test_servers_share_a_bucket_and_no_directory(two: list[PlatformProcess], tmp_path: Path) -> None:
    a, b = two
    clients = (httpx.Client(base_url=each.base_url, auth=("x", ADMIN_KEY), timeout=60) for each in two)
    here, there = clients
    with here, there:
        path = httpx.URL(here.post("/v2/default/shared/blobs/uploads/").headers["location"]).path
        assert here.patch(path, content=CONTENT[:-1]).status_code == 202
        assert there.put(path, params={"digest": DIGEST}, content=CONTENT[-1:]).status_code == 201
        assert here.get(f"/v2/default/shared/blobs/{DIGEST}", follow_redirects=True).content == CONTENT

    b.deploy(write_worker(tmp_path / "writer", "writer", WRITER))
    with a.client() as client:
        asked = client.post("/v1/storage/upload-request", json={"filename": "in.txt"}).json()
        assert httpx.put(asked["upload_url"]["url"], content=b"what was sent").status_code == 200
    job = a.finished("writer", b.submit("writer", {"file": asked["url"]}))
    assert job["status"] == "done", job
    name = job["outputs"]["made"].rpartition("/v1/storage/")[2]
    with b.client() as client:
        assert client.get(f"/v1/storage/{name}", follow_redirects=True).text == "made of what was sent"
    downloaded = a.jig("download", name, cwd=tmp_path)
    assert downloaded.returncode == 0
    assert (tmp_path / name).read_text() == "made of what was sent"
    for each in two:
        kept = [path for part in ("blobs", "uploads") for path in (each.data_dir / part).rglob("*") if path.is_file()]
        assert kept == []


def test_a_bucket_that_lets_nobody_in_is_said_at_once(objects: ObjectStorage, tmp_path: Path) -> None:
    place = objects.make_place()
    server = make_server(tmp_path / "server", objects, str(place))
    objects.check_keys(True)
    try:
        started = server.machineshop("serve", "--data-dir", server.data_dir, "--port", "0")
    finally:
        objects.check_keys(False)
    assert started.returncode == 1
    assert f"The object storage {place} cannot be used: it refuses us: it answers InvalidAccessKeyId" in started.stderr
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in started.stderr
    assert "Traceback" not in started.stderr
