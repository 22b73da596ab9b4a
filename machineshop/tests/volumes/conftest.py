"""A project that has volumes, on a socket, on each database."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from factory import Clock
from files.shop import Shop
from machineshop.models import Deployment
from machineshop.services.deployments import DeploymentService
from machineshop.services.secrets import SecretService
from object_storage import ObjectStorage
from volumes.elsewhere import Elsewhere
from volumes.fake_s3 import Server, fake_s3

VOLUMES = "/v1/deployments/storage/volumes"
MOUNT = {"name": "weights", "mount_path": "/models"}


class Volumes:
    """A client that uses volumes as the real ones do; what it is refused is an assertion unless it is asked for."""

    def __init__(self, shop: Shop, deployments: DeploymentService, project_id: str) -> None:
        self.shop = shop
        self.deployments = deployments
        self.project_id = project_id
        self.client = shop.client()
        self._stranger = shop.client(None)

    async def create(self, name: str = "weights", **files: bytes) -> dict[str, Any]:
        """A volume with these files in its version 0, open."""
        content = {"type": "files", "source_prefix": f"{name}/0"}
        made = await self.create_of(content, name)
        for path, data in files.items():
            await self.upload(f"{name}/0/{path}", data)
        return made

    async def create_of(self, content: dict[str, Any], name: str = "weights") -> dict[str, Any]:
        return await self.answer("POST", VOLUMES, {"name": name, "type": "readOnly", "content": content})

    async def update(self, name: str, number: int, **files: bytes) -> dict[str, Any]:
        """Files for the next version, and the version of them."""
        for path, data in files.items():
            await self.upload(f"{name}/{number}/{path}", data)
        content = {"type": "files", "source_prefix": f"{name}/{number}"}
        return await self.answer("PATCH", f"{VOLUMES}/{name}", {"content": content})

    async def describe(self, name: str = "weights", number: int | None = None) -> dict[str, Any]:
        return await self.answer("GET", f"{VOLUMES}/{name}" + ("" if number is None else f"?version={number}"))

    async def seal(self, name: str = "weights") -> None:
        await self.shop.volumes.seal(self.project_id, name)

    async def claim(self, number: int, files: dict[str, bytes], name: str = "weights") -> dict[str, str]:
        """What the version has of these files, by path."""
        body = {"files": [claimed(path, data) for path, data in files.items()]}
        answer = await self.answer("POST", f"{VOLUMES}/{name}/versions/{number}/files", body)
        return {each["path"]: each["status"] for each in answer["data"]}

    async def batch(self, number: int, files: dict[str, bytes], name: str = "weights") -> httpx.Response:
        """Files in one request."""
        return await self.client.put(batch_path(number, name), content=batched(files))

    async def mount(self, deployment: str, *mounts: dict[str, Any]) -> Deployment:
        """A deployment that mounts these."""
        fields = {"name": deployment, "image": "registry/ns/hello@sha256:1", "gpu_type": "none", "volumes": mounts}
        return await self.deployments.create(self.project_id, fields)

    async def upload(self, name: str, data: bytes) -> None:
        answer = await self.try_upload(name, data)
        assert answer.status_code == 200, answer.text

    async def try_upload(self, name: str, data: bytes) -> httpx.Response:
        return await self._stranger.put(await self.url(name), content=data)

    async def url(self, name: str) -> str:
        """Where a file may be uploaded, later perhaps."""
        answer = await self.answer("POST", "/v1/storage/upload-request", {"filename": name})
        url: str = answer["upload_url"]["url"]
        return url

    async def upload_in_parts(self, name: str, *parts: bytes) -> httpx.Response:
        """A file in parts; the answer that completes it."""
        begun = await self.answer("POST", "/v1/storage/multipart/init", {"filename": name, "parts_count": len(parts)})
        sent = []
        for part, data in zip(begun["part_upload_urls"], parts, strict=True):
            answer = await self._stranger.put(part["url"], content=data)
            assert answer.status_code == 200, answer.text
            sent.append({"part_number": part["part_number"], "etag": answer.headers["etag"].strip('"')})
        body = {"filename": name, "upload_id": begun["upload_id"], "parts": sent}
        return await self.client.post("/v1/storage/multipart/complete", json=body)

    async def read(self, name: str) -> bytes | None:
        return await self.shop.read(name)

    async def answer(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = await self.client.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refused(self, method: str, path: str, body: object = None) -> tuple[int, str, str]:
        """Status, code and message of what is refused."""
        return refusal(await self.client.request(method, path, json=body))


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


def claimed(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def batched(files: dict[str, bytes]) -> bytes:
    """The body of a batch."""
    line = json.dumps({"files": [claimed(path, data) for path, data in files.items()]})
    return line.encode() + b"\n" + b"".join(files.values())


def batch_path(number: int, name: str = "weights") -> str:
    return f"{VOLUMES}/{name}/versions/{number}/files"


@pytest.fixture
def team(shop: Shop, deployments: DeploymentService, deployment: Deployment) -> Volumes:
    return Volumes(shop, deployments, deployment.project_id)


@pytest.fixture
async def elsewhere(
    team: Volumes, objects: ObjectStorage, secrets: SecretService, clock: Clock
) -> AsyncIterator[Elsewhere]:
    place = Elsewhere(team, objects, secrets, clock)
    yield place
    await place.sync.close()


@pytest.fixture
def origin() -> Iterator[Server]:
    with fake_s3() as server:
        yield server


@pytest.fixture
async def wrong(elsewhere: Elsewhere, origin: Server) -> Elsewhere:
    """An origin that answers as the test's script says, read with keys of the project."""
    elsewhere.allowed.add(origin.port)
    await elsewhere.give_keys(endpoint_url=origin.endpoint)
    return elsewhere
