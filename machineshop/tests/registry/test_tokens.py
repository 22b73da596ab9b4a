"""Tokens: what a client is told to fetch, what it gets for its key, and what that lets it do."""

import base64
import re
from typing import Any

import httpx
import pytest

from factory import Clock
from machineshop.models import Scope
from machineshop.services.registry_tokens import LIFETIME_SECONDS, Claims, Grant, sign
from pusher import Pusher, code_of, digest_of
from storage_server import StorageServer

LAYER = b"layer"
BLOB = f"/v2/team/app/blobs/{digest_of(LAYER)}"


async def ask(server: StorageServer, key: str, *scopes: str) -> dict[str, Any]:
    """A token as a client asks for one that has logged in."""
    async with server.client(None) as client:
        query = {"service": server.host, "account": "user", "scope": list(scopes)}
        answer = await client.get("/v2/token", params=query, auth=httpx.BasicAuth("user", key))
    assert answer.status_code == 200, answer.text
    fields: dict[str, Any] = answer.json()
    return fields


async def token_for(server: StorageServer, *scopes: str, project: str = "team") -> str:
    return str((await ask(server, await server.key(project), *scopes))["token"])


@pytest.fixture(autouse=True)
async def image(pusher: Pusher) -> None:
    await pusher.image("team/app", "v1", b"{}", LAYER)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v2/team/app/manifests/v1", "repository:team/app:pull"),
        ("HEAD", BLOB, "repository:team/app:pull"),
        ("POST", "/v2/team/app/blobs/uploads/", "repository:team/app:pull,push"),
        ("PUT", "/v2/team/app/manifests/v1", "repository:team/app:pull,push"),
        ("DELETE", "/v2/team/app/manifests/v1", "repository:team/app:delete"),
        ("GET", "/v2/", None),
        ("GET", '/v2/te"am/app/tags/list', None),
    ],
)
async def test_the_challenge_names_what_it_takes(
    server: StorageServer, method: str, path: str, scope: str | None
) -> None:
    async with server.client(None) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    assert challenge.startswith("Bearer ")
    assert fields == {"realm": f"{server.base_url}/v2/token", "service": server.host} | (
        {} if scope is None else {"scope": scope}
    )


async def test_the_challenge_has_the_address_that_the_client_used(server: StorageServer) -> None:
    async with server.client(None) as client:
        by_name = await client.get("/v2/", headers={"Host": "registry.example.org:5000"})
        odd = await client.get("/v2/", headers={"Host": 'a"b'})
    assert 'realm="http://registry.example.org:5000/v2/token"' in by_name.headers["www-authenticate"]
    assert f'realm="{server.base_url}/v2/token"' in odd.headers["www-authenticate"]


async def test_a_token_does_what_it_was_asked_for(server: StorageServer) -> None:
    token = await token_for(server, "repository:team/app:pull")
    async with server.client(token) as client:
        assert (await client.get("/v2/")).status_code == 200
        assert (await client.get(BLOB)).content == LAYER
        refused = await client.post("/v2/team/app/blobs/uploads/")
        deleted = await client.delete(BLOB)
    assert [code_of(refused), code_of(deleted)] == [(401, "UNAUTHORIZED")] * 2
    challenge = refused.headers["www-authenticate"]
    assert 'scope="repository:team/app:pull,push",error="insufficient_scope"' in challenge


async def test_a_token_for_another_repository_is_refused(server: StorageServer, pusher: Pusher) -> None:
    await pusher.image("team/other", "v1", b"{}", LAYER)
    token = await token_for(server, "repository:team/other:pull,push,delete")
    async with server.client(token) as client:
        answers = [
            await client.get("/v2/team/app/manifests/v1"),
            await client.put("/v2/team/app/manifests/v1", content=b"{}"),
            await client.delete(BLOB),
        ]
        assert (await client.get("/v2/team/other/manifests/v1")).status_code == 200
    assert [code_of(answer) for answer in answers] == [(401, "UNAUTHORIZED")] * 3


async def test_a_mount_needs_the_right_to_pull_from_there(server: StorageServer) -> None:
    mount = {"mount": digest_of(LAYER), "from": "team/app"}
    blind = await token_for(server, "repository:team/mine:pull,push")
    seeing = await token_for(server, "repository:team/mine:pull,push repository:team/app:pull")
    async with server.client(blind) as client:
        assert (await client.post("/v2/team/mine/blobs/uploads/", params=mount)).status_code == 202
        anywhere = {"mount": digest_of(LAYER)}
        assert (await client.post("/v2/team/mine/blobs/uploads/", params=anywhere)).status_code == 202
    async with server.client(seeing) as client:
        assert (await client.post("/v2/team/mine/blobs/uploads/", params=mount)).status_code == 201


async def test_another_organizations_token_sees_nothing(server: StorageServer) -> None:
    token = await token_for(server, "repository:team/app:pull", project="rival")
    async with server.client(token) as rival:
        answers = [await rival.get(BLOB), await rival.get("/v2/team/app/tags/list"), await rival.delete(BLOB)]
    assert [code_of(answer) for answer in answers] == [(404, "NAME_UNKNOWN")] * 3


async def test_a_worker_key_gets_tokens_that_only_pull(server: StorageServer) -> None:
    fields = await ask(server, await server.key("team", Scope.WORKER), "repository:team/app:*")
    async with server.client(fields["token"]) as client:
        assert (await client.get(BLOB)).status_code == 200
        assert code_of(await client.post("/v2/team/app/blobs/uploads/")) == (403, "DENIED")


async def test_a_token_expires(server: StorageServer, clock: Clock) -> None:
    fields = await ask(server, await server.key(), "repository:team/app:pull")
    assert fields["expires_in"] == LIFETIME_SECONDS
    async with server.client(fields["token"]) as client:
        clock.now += LIFETIME_SECONDS - 1
        assert (await client.get(BLOB)).status_code == 200
        clock.now += 1
        expired = await client.get(BLOB)
    assert code_of(expired) == (401, "UNAUTHORIZED")
    assert "expired" in expired.text
    assert expired.headers["www-authenticate"].startswith("Bearer ")


async def test_a_token_ends_with_its_key(server: StorageServer) -> None:
    record, key = await server.identity.create_key("team", "short", Scope.DEVELOPER)
    fields = await ask(server, key, "repository:team/app:pull")
    async with server.client(fields["token"]) as client:
        assert (await client.get(BLOB)).status_code == 200
        await server.identity.revoke_key(record.id)
        assert code_of(await client.get(BLOB)) == (401, "UNAUTHORIZED")


async def test_a_token_is_good_as_a_password_and_makes_no_other(server: StorageServer) -> None:
    token = await token_for(server, "repository:team/app:pull")
    async with server.client(None) as client:
        assert (await client.get(BLOB, auth=httpx.BasicAuth("user", token))).content == LAYER
        again = await client.get("/v2/token", auth=httpx.BasicAuth("user", token))
    assert code_of(again) == (401, "UNAUTHORIZED")


async def test_tokens_that_we_did_not_sign_are_refused(server: StorageServer) -> None:
    token = await token_for(server, "repository:team/app:pull")
    record, _ = await server.identity.create_key("team", "forger", Scope.DEVELOPER)
    forged = sign(b"a guess", Claims(record.id, 2**40, (Grant("team/app", ("pull",)),)))
    body, _, signature = token.partition(".")
    tricks = [forged, f"{body}x.{signature}", body, "mrt_", "mrt_.", f"{token}=", f"{body}.{signature[:-1]}"]
    async with server.client(None) as client:
        answers = [await client.get(BLOB, headers={"Authorization": f"Bearer {trick}"}) for trick in tricks]
    assert [code_of(answer) for answer in answers] == [(401, "UNAUTHORIZED")] * len(tricks)


@pytest.mark.parametrize(
    "scope",
    ["", "nonsense", "registry:catalog:*", "repository:team/app", "repository:rival/app:pull", "repository:team/app:x"],
)
async def test_what_is_not_granted_is_left_out(server: StorageServer, scope: str) -> None:
    async with server.client(await token_for(server, scope)) as client:
        assert (await client.get("/v2/")).status_code == 200
        assert (await client.get(BLOB)).status_code == 401


async def test_a_token_by_post(server: StorageServer) -> None:
    form = {
        "grant_type": "password",
        "username": "user",
        "password": await server.key(),
        "scope": "repository:team/app:pull",
        "service": server.host,
    }
    async with server.client(None) as client:
        answer = await client.post("/v2/token", data=form)
        token = answer.json()["access_token"]
        assert (await client.get(BLOB, headers={"Authorization": f"Bearer {token}"})).content == LAYER
        other = await client.post("/v2/token", data=form | {"grant_type": "refresh_token"})
        wrong = await client.post("/v2/token", data=form | {"password": "msk_wrong"})
        large = await client.post("/v2/token", data=form | {"username": "x" * 100_000})
        head = await client.head("/v2/token")
    assert code_of(other) == (400, "UNSUPPORTED")
    assert code_of(wrong) == (401, "UNAUTHORIZED")
    assert large.status_code == 413
    assert head.status_code == 405


@pytest.mark.parametrize("authorization", [None, "Basic " + base64.b64encode(b"user:msk_wrong").decode()])
async def test_without_a_key_there_is_no_token(server: StorageServer, authorization: str | None) -> None:
    async with server.client(None) as client:
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = await client.get("/v2/token", headers=headers)
    assert code_of(answer) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"] == 'Basic realm="machineshop"'


async def test_the_platforms_own_token_pulls_one_repository_for_a_project_and_does_nothing_else(
    server: StorageServer, pusher: Pusher
) -> None:
    await pusher.image("team/other", "v1", b"{}", LAYER)
    token = await server.access.issue_pull(await server.project_id("team"), "team/app")
    async with server.client(token) as client:
        assert (await client.get("/v2/team/app/manifests/v1")).status_code == 200
        assert (await client.get("/v2/team/other/manifests/v1")).status_code == 401
        assert (await client.delete("/v2/team/app/manifests/v1")).status_code == 403
    stranger = await server.access.issue_pull(await server.project_id("stranger"), "team/app")
    async with server.client(stranger) as client:
        assert (await client.get("/v2/team/app/manifests/v1")).status_code == 404
