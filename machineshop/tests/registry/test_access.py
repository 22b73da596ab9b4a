"""Who may do what: keys, scopes and namespaces."""

import asyncio
import base64

import httpx
import pytest

from factory import Clock
from machineshop.models import Scope
from machineshop.services.failures import BURST
from pusher import Pusher, code_of, digest_of
from storage_server import StorageServer


async def test_without_a_key_the_answer_says_how_to_log_in(server: StorageServer) -> None:
    async with server.client(None) as stranger:
        answer = await stranger.get("/v2/")
    assert code_of(answer) == (401, "UNAUTHORIZED")
    expected = f'Bearer realm="{server.base_url}/v2/token",service="{server.host}"'
    assert answer.headers["www-authenticate"] == expected


@pytest.mark.parametrize("user", ["user", "", "somebody@example.org"])
async def test_a_key_is_taken_as_the_password_of_any_user(server: StorageServer, user: str) -> None:
    key = await server.key()
    async with server.client(None) as client:
        answer = await client.get("/v2/", auth=httpx.BasicAuth(user, key))
    assert answer.status_code == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic %%%",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"user:\xff").decode(),
        "Bearer",
        "Bearer msk_unknown",
        "Digest x",
    ],
)
async def test_a_broken_authorization_is_no_authorization(server: StorageServer, header: str) -> None:
    async with server.client(None) as client:
        answer = await client.get("/v2/", headers={"Authorization": header})
    assert code_of(answer) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("path", ["/v2/", "/v2/token"])
async def test_whoever_guesses_keys_is_told_to_wait(server: StorageServer, path: str) -> None:
    async with server.client(None) as client:
        for number in range(BURST):
            await client.get(path, headers={"Authorization": f"Bearer msk_guess-{number}"})
        answer = await client.get(path, headers={"Authorization": "Bearer msk_guess"})
    assert code_of(answer) == (429, "TOOMANYREQUESTS")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_worker_key_pulls_and_does_not_push(server: StorageServer, pusher: Pusher) -> None:
    layer = b"layer"
    await pusher.image("team/app", "v1", b"{}", layer)
    async with server.client(await server.key("team", Scope.WORKER)) as worker:
        assert (await worker.get("/v2/team/app/manifests/v1")).status_code == 200
        assert (await worker.get(f"/v2/team/app/blobs/{digest_of(layer)}")).content == layer
        answers = [
            await worker.post("/v2/team/app/blobs/uploads/"),
            await worker.put("/v2/team/app/manifests/v2", content=b"{}"),
            await worker.delete("/v2/team/app/manifests/v1"),
            await worker.delete(f"/v2/team/app/blobs/{digest_of(layer)}"),
        ]
    assert [code_of(answer) for answer in answers] == [(403, "DENIED")] * 4


async def test_another_organization_sees_nothing(server: StorageServer, pusher: Pusher) -> None:
    layer = b"a secret layer"
    digest = await pusher.image("team/app", "v1", b"{}", layer)
    upload = await pusher.start("team/app")
    async with server.client(await server.key("rival")) as rival:
        answers = [
            await rival.get("/v2/team/app/manifests/v1"),
            await rival.get(f"/v2/team/app/manifests/{digest}"),
            await rival.delete(f"/v2/team/app/manifests/{digest}"),
            await rival.get(f"/v2/team/app/blobs/{digest_of(layer)}"),
            await rival.get("/v2/team/app/tags/list"),
            await rival.get(f"/v2/team/app/referrers/{digest}"),
            await rival.get("/v2/team/nothing/tags/list"),
            await rival.post("/v2/team/app/blobs/uploads/"),
            await rival.put("/v2/team/app/manifests/v1", content=b"{}"),
            await rival.get(upload),
            await rival.patch(upload, content=b"x"),
        ]
        assert {code_of(answer) for answer in answers} == {(404, "NAME_UNKNOWN")}
        # Not by way of a repository of its own either.
        await Pusher(rival).image("rival/app", "v1")
        head = await rival.head(f"/v2/rival/app/blobs/{digest_of(layer)}")
        assert head.status_code == 404
        mount = {"mount": digest_of(layer), "from": "team/app"}
        assert (await rival.post("/v2/rival/app/blobs/uploads/", params=mount)).status_code == 202
        assert (await rival.post("/v2/rival/app/blobs/uploads/", params=mount | {"from": ""})).status_code == 202
        assert (await rival.post("/v2/rival/app/blobs/uploads/?mount=" + digest_of(layer))).status_code == 202
        foreign = await rival.get(upload.replace("team/app", "rival/app"))
        assert code_of(foreign) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert (await rival.get("/v1/image-repositories/team___app/images")).status_code == 404
        listed = (await rival.get("/v1/image-repositories")).json()["data"]
        assert [each["id"] for each in listed] == ["rival___app"]


async def raw_get(server: StorageServer, path: str, authorization: str) -> str:
    """The whole answer to a request whose path no client has tidied up."""
    reader, writer = await asyncio.open_connection(*server.host.split(":"))
    head = f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/team/../team/app/tags/list", 400),
        ("/v2/team/%2e%2e/rival/tags/list", 400),
        ("/v2/team/..%2Frival/tags/list", 400),
        ("/v2//etc/passwd/tags/list", 400),
        ("/v2/team/App/tags/list", 400),
        ("/v2/team/a//b/tags/list", 400),
        ("/v2/team/app%00/tags/list", 400),
        ("/v2/team/" + "a" * 260 + "/tags/list", 400),
        ("/v2/team/tags/list", 404),
        ("/v2/_catalog", 404),
        ("/v2/team/app/blobs/sha256:..%2f..%2f..%2fmachineshop.db", 404),
        ("/v2/team/app/blobs/sha256:" + "0" * 63, 400),
        ("/v2/team/app/blobs/md5:" + "0" * 32, 400),
        ("/v2/team/app/blobs/uploads/..%2f..%2fmachineshop.db", 404),
        ("/v2/team/app/blobs/uploads/machineshop.db", 404),
        ("/v2/team/app/manifests/.hidden", 404),
        ("/v2/team/app/manifests/sha256:zz", 404),
    ],
)
async def test_path_tricks_lead_nowhere(server: StorageServer, pusher: Pusher, path: str, status: int) -> None:
    await pusher.image("team/app", "v1")
    answer = await raw_get(server, path, str(pusher.client.headers["authorization"]))
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert '"errors"' in answer


async def test_a_repository_may_be_called_like_a_part_of_the_api(pusher: Pusher) -> None:
    for name in ("team/blobs/uploads", "team/manifests/latest", "team/tags/list"):
        digest = await pusher.image(name, "v1", name.encode())
        answer = await pusher.client.get(f"/v2/{name}/manifests/v1")
        assert answer.headers["docker-content-digest"] == digest
        assert (await pusher.client.get(f"/v2/{name}/tags/list")).json() == {"name": name, "tags": ["v1"]}


async def test_head_says_what_get_says_without_the_body(pusher: Pusher) -> None:
    digest = await pusher.image("team/app", "v1", b"{}", b"layer")
    upload = await pusher.start("team/app")
    for path in (
        "/v2/",
        "/v2/team/app/manifests/v1",
        f"/v2/team/app/manifests/{digest}",
        f"/v2/team/app/blobs/{digest_of(b'layer')}",
        "/v2/team/app/tags/list",
        f"/v2/team/app/referrers/{digest}",
        upload,
    ):
        head, get = await pusher.client.head(path), await pusher.client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert dict(head.headers) | {"date": ""} == dict(get.headers) | {"date": ""}


async def test_methods_that_are_not_known_are_said_to_be(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v2/team/app/manifests/v1")
    assert code_of(answer) == (405, "UNSUPPORTED")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PUT"


async def test_a_revoked_key_pulls_no_more(server: StorageServer, clock: Clock) -> None:
    record, key = await server.identity.create_key("team", "short", Scope.DEVELOPER)
    async with server.client(key) as client:
        assert (await client.get("/v2/")).status_code == 200
        await server.identity.revoke_key(record.id)
        assert (await client.get("/v2/")).status_code == 401
