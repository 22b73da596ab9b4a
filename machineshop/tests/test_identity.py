"""Keys: hashed, scoped, revocable."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from factory import ADMIN_KEY, Clock
from machineshop.errors import InvalidRequest, NotAuthenticated, NotFound
from machineshop.models import Deployment, Identity, Scope
from machineshop.services.identity import IdentityService
from machineshop.store.database import Database
from machineshop.store.tables import api_keys


async def test_no_key_is_stored(identity: IdentityService, admin: Identity, database: Database) -> None:
    _, key = await identity.create_key("default", "ci", Scope.DEVELOPER)
    rows = await database.read(lambda conn: conn.execute(select(api_keys)).all())
    assert len(rows) == 2
    assert not any(secret in str(row) for row in rows for secret in (key, ADMIN_KEY))


async def test_another_admin_key_replaces_the_first(identity: IdentityService, clock: Clock) -> None:
    first = await identity.ensure_admin("the-first-admin-key-of-all")
    second = await identity.ensure_admin("the-second-admin-key-of-all")
    assert first.project == second.project
    clock.now += 60
    with pytest.raises(NotAuthenticated):
        await identity.authenticate("the-first-admin-key-of-all")


@pytest.mark.parametrize(
    "weak", ["short", "x" * 513, "has a space in the middle", "ünicode-is-not-for-headers", "a" * 25 + "\n"]
)
async def test_a_weak_admin_key_is_refused(identity: IdentityService, weak: str) -> None:
    with pytest.raises(InvalidRequest):
        await identity.ensure_admin(weak)


@pytest.mark.parametrize("wrong", [None, "", "nonsense", "x" * 100_000, "ü"])
async def test_an_unknown_key_is_refused(identity: IdentityService, wrong: str | None) -> None:
    with pytest.raises(NotAuthenticated):
        await identity.authenticate(wrong)


async def test_a_revoked_key_ends(identity: IdentityService, admin: Identity) -> None:
    record, key = await identity.create_key("default", "ci", Scope.DEVELOPER)
    assert (await identity.authenticate(key)).key.id == record.id
    await identity.revoke_key(record.prefix)
    with pytest.raises(NotAuthenticated):
        await identity.authenticate(key)
    with pytest.raises(NotFound):
        await identity.revoke_key(record.id)


async def test_the_store_is_asked_once_for_all_streams_of_a_key(
    identity: IdentityService, database: Database, admin: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, key = await identity.create_key("default", "ci", Scope.VIEWER)
    caller = await identity.authenticate(key)
    reading, reads = database.read, 0

    async def read(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await reading(*args)

    monkeypatch.setattr(database, "read", read)
    for looks in (1, 2):
        clock.now += 2.1
        assert all(await asyncio.gather(*[identity.still_holds(caller) for _ in range(100)]))
        assert reads == looks
    await identity.revoke_key(record.id)
    assert not any(await asyncio.gather(*[identity.still_holds(caller) for _ in range(100)]))


async def test_a_key_revoked_elsewhere_ends_within_two_seconds(
    identity: IdentityService, database: Database, admin: Identity, clock: Clock
) -> None:
    record, key = await identity.create_key("default", "ci", Scope.DEVELOPER)
    await identity.authenticate(key)
    await IdentityService(database).revoke_key(record.id)
    clock.now += 2.1
    with pytest.raises(NotAuthenticated):
        await identity.authenticate(key)


async def test_a_replica_s_key_is_its_own_and_ends_with_it(identity: IdentityService, deployment: Deployment) -> None:
    key = await identity.create_worker_key(deployment.project_id, deployment.id, "replica-1")
    seen = await identity.authenticate(key)
    assert (seen.key.scope, seen.key.deployment_id, seen.key.replica_id) == (Scope.WORKER, deployment.id, "replica-1")
    await identity.revoke_replica_keys("replica-1")
    with pytest.raises(NotAuthenticated):
        await identity.authenticate(key)
    assert [record.name for record in await identity.list_keys()] == ["admin"]


async def test_projects_are_apart(identity: IdentityService, admin: Identity) -> None:
    _, key = await identity.create_key("other", "ci", Scope.DEVELOPER)
    other = await identity.authenticate(key)
    assert other.project.id != admin.project.id
    assert other.organization.slug != admin.organization.slug


@pytest.mark.parametrize("slug", ["", "Team", "a/b", "../x", "-a", "a-", "a" * 64, "a\n", "te_am"])
async def test_a_project_that_could_be_no_namespace_is_refused(identity: IdentityService, slug: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await identity.create_key(slug, "ci", Scope.DEVELOPER)
    assert refused.value.param == "project"
