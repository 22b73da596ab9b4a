"""Keys and projects over the API: what admins may, what others may not, and what is recorded of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from alembic import command
from sqlalchemy import create_engine, text

from factory import Clock, connected
from machineshop.app import Platform
from machineshop.errors import InvalidRequest, NotAuthenticated, TooManyFailures
from machineshop.models import Identity, Scope
from machineshop.services.failures import BURST
from machineshop.services.identity import IdentityService
from machineshop.services.keys import ends_at
from machineshop.store import schema
from machineshop.store.database import sqlite_url
from machineshop.store.schema import migrate

Client = httpx.AsyncClient
IMPOSSIBLE: list[tuple[str, dict[str, object]]] = [
    ("/v1/api-keys", {"name": ""}),
    ("/v1/api-keys", {"name": "x", "scope": "worker"}),
    ("/v1/api-keys", {"name": "x", "scope": "project"}),
    ("/v1/api-keys", {"name": "x", "expires_in_seconds": 1}),
    ("/v1/api-keys", {"name": "x\n"}),
    ("/v1/projects", {"slug": "../x"}),
    ("/v1/projects", {"slug": "x", "name": "y" * 1000}),
    ("/v1/projects", {"slug": "x", "name": "a\x1b[2Jb"}),
    ("/v1/projects", {"slug": "x", "name": "a\nb"}),
    ("/v1/projects", {"slug": "x", "name": "a\x00b"}),
    ("/v1/projects", {"slug": "x", "name": "a\u202eb"}),
]


@pytest.fixture
async def admin_client(platform: Platform) -> AsyncIterator[Client]:
    async with connected(platform, platform.admin_key) as client:
        yield client


async def test_a_key_is_shown_once(admin_client: Client, platform: Platform) -> None:
    made = (await admin_client.post("/v1/api-keys", json={"name": "ci", "scope": "viewer"})).json()
    listed = (await admin_client.get("/v1/api-keys")).text

    assert made["key"].startswith(made["prefix"])
    assert made["key"] not in listed
    assert made["id"] in listed
    async with connected(platform, made["key"]) as viewer:
        assert (await viewer.get("/v3/whoami")).json()["api_key"]["scope"] == "viewer"


async def test_a_key_ends_when_it_is_revoked(admin_client: Client, platform: Platform) -> None:
    made = (await admin_client.post("/v1/api-keys", json={"name": "ci"})).json()
    async with connected(platform, made["key"]) as client:
        assert (await client.get("/v3/whoami")).status_code == 200
        assert (await admin_client.delete(f"/v1/api-keys/{made['id']}")).json()["revoked"] is True
        assert (await client.get("/v3/whoami")).status_code == 401
    assert (await admin_client.delete(f"/v1/api-keys/{made['id']}")).status_code == 404


async def test_projects_of_an_organization_have_keys_of_their_own(admin_client: Client, platform: Platform) -> None:
    assert (await admin_client.post("/v1/projects", json={"slug": "vision"})).json()["organization"][
        "slug"
    ] == "default"
    made = (await admin_client.post("/v1/api-keys", json={"name": "ci", "project": "vision"})).json()

    async with connected(platform, made["key"]) as client:
        assert (await client.get("/v3/whoami")).json()["project"]["slug"] == "vision"
    assert (await admin_client.post("/v1/projects", json={"slug": "vision"})).status_code == 409


async def test_an_admin_of_another_organization_finds_none_of_it(admin_client: Client, platform: Platform) -> None:
    made = (await admin_client.post("/v1/api-keys", json={"name": "ci"})).json()
    _, key = await platform.parts.identity.create_key("stranger", "boss", Scope.ADMIN)

    async with connected(platform, key) as stranger:
        assert (await stranger.delete(f"/v1/api-keys/{made['id']}")).status_code == 404
        assert (await stranger.delete(f"/v1/api-keys/{made['prefix']}")).status_code == 404
        theirs = await stranger.post("/v1/api-keys", json={"name": "thief", "project": "default"})
        assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")
        assert [record["name"] for record in (await stranger.get("/v1/api-keys")).json()["data"]] == ["boss"]
        assert [project["slug"] for project in (await stranger.get("/v1/projects")).json()["data"]] == ["stranger"]
        assert {event["subject"] for event in (await stranger.get("/v1/audit")).json()["data"]} == {"boss"}


async def test_what_cannot_be_is_refused(admin_client: Client) -> None:
    for path, body in IMPOSSIBLE:
        answer = await admin_client.post(path, json=body)
        assert answer.status_code == 400, f"{path} {body}: {answer.text}"
    for query in ({"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"action": "x" * 200}, {"before": "x"}):
        assert (await admin_client.get("/v1/audit", params=query)).status_code == 400, query


async def test_changes_are_recorded_with_who_and_from_where(admin_client: Client) -> None:
    made = (await admin_client.post("/v1/api-keys", json={"name": "ci", "expires_in_seconds": 3600})).json()
    await admin_client.delete(f"/v1/api-keys/{made['id']}")

    revoked, created = (await admin_client.get("/v1/audit", params={"action": "key"})).json()["data"]
    assert (created["action"], created["subject"], created["actor"]["name"]) == ("key.create", "ci", "admin")
    assert created["address"] == "127.0.0.1"
    assert (created["before"], created["after"]["id"]) == (None, made["id"])
    assert (revoked["action"], revoked["after"]) == ("key.revoke", None)
    page = (await admin_client.get("/v1/audit", params={"before": revoked["id"], "limit": 1})).json()["data"]
    assert [event["id"] for event in page] == [created["id"]]
    assert made["key"] not in str((revoked, created))


async def test_guessing_is_slowed_down_and_valid_keys_are_not(
    admin_client: Client, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.parts.identity, "_clock", lambda: 1e9)  # nothing is made up for by waiting

    async def tried(key: str) -> httpx.Response:
        return await admin_client.get("/v3/whoami", headers={"Authorization": f"Bearer {key}"})

    assert [(await tried(f"msk_guess-{number}")).status_code for number in range(BURST)] == [401] * BURST
    refused = await tried("msk_one-more-guess")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_failures")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await admin_client.get("/v3/whoami")).status_code == 200
    made = (await admin_client.post("/v1/api-keys", json={"name": "new"})).json()
    assert (await tried(made["key"])).status_code == 200


async def test_a_key_expires(identity: IdentityService, admin: Identity, clock: Clock) -> None:
    _, key = await identity.create_key("default", "ci", Scope.DEVELOPER, lifetime_seconds=3600)
    assert (await identity.authenticate(key)).key.expires_at == clock.now + 3600
    clock.now += 3600

    with pytest.raises(NotAuthenticated, match="expired"):
        await identity.authenticate(key)


async def test_a_key_that_expires_is_not_kept_alive_by_being_used(
    identity: IdentityService, admin: Identity, clock: Clock
) -> None:
    record, key = await identity.create_key("default", "ci", Scope.DEVELOPER, lifetime_seconds=60)
    for _ in range(59):
        clock.now += 1
        await identity.authenticate(key)
        await identity.owner_of(record.id)
    clock.now += 1
    with pytest.raises(NotAuthenticated):
        await identity.authenticate(key)
    with pytest.raises(NotAuthenticated):
        await identity.owner_of(record.id)


async def test_the_last_use_is_written_down_once_in_a_while(
    identity: IdentityService, admin: Identity, clock: Clock
) -> None:
    record, key = await identity.create_key("default", "ci", Scope.DEVELOPER)

    async def last_used() -> float | None:
        return next(each.last_used_at for each in await identity.list_keys() if each.id == record.id)

    await identity.authenticate(key)
    assert await last_used() is None
    await identity.note_uses(clock.now)
    assert await last_used() == clock.now
    used, clock.now = clock.now, clock.now + 100
    await identity.note_uses(clock.now)
    assert await last_used() == used


async def test_an_address_is_slowed_down_and_its_known_keys_are_not(identity: IdentityService, admin: Identity) -> None:
    _, key = await identity.create_key("default", "ci", Scope.DEVELOPER)
    for number in range(BURST):
        with pytest.raises(NotAuthenticated):
            await identity.authenticate(f"guess-{number}", "192.0.2.1")

    with pytest.raises(TooManyFailures):
        await identity.authenticate("another-guess", "192.0.2.1")
    await identity.authenticate(key, "192.0.2.1")


@pytest.mark.parametrize("seconds", [0, -1, 59, 10 * 365 * 86400 + 1])
def test_a_lifetime_out_of_range_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidRequest):
        ends_at(0.0, seconds)


@pytest.fixture
def older_database(tmp_path: Path) -> Iterator[str]:
    """A store of before keys had finer scopes, with one of the scope that is gone."""
    url = sqlite_url(tmp_path / "older.db")
    engine = create_engine(url)
    with engine.begin() as conn:
        command.upgrade(schema.config(conn), "0004")
        conn.execute(text("INSERT INTO organizations VALUES ('o', 'o', 'o', 1)"))
        conn.execute(text("INSERT INTO projects VALUES ('p', 'o', 'p', 'p', 1)"))
        conn.execute(
            text(
                "INSERT INTO api_keys (id, project_id, name, prefix, hash, scope, created_at) "
                "VALUES ('k', 'p', 'ci', 'msk_', 'h', 'project', 1)"
            )
        )
    yield url
    engine.dispose()


def test_keys_of_projects_are_developers_keys_after_the_migration(older_database: str) -> None:
    migrate(older_database)
    engine = create_engine(older_database)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT id, scope, hash FROM api_keys")).all() == [("k", "developer", "h")]
    engine.dispose()
