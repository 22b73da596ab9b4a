"""Secrets: set, changed, deleted and expired; sealed in the store; given to those who start."""

import asyncio
import logging
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Connection, select

from factory import Clock
from machineshop.errors import (
    AlreadyExists,
    InvalidRequest,
    MalformedBody,
    NotFound,
    SecretMissing,
    SecretsKeyMissing,
)
from machineshop.models import Deployment, Identity, Scope, SealedValue
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.keyring import KeyRing
from machineshop.services.sealing import SealingKey, SecretUnreadable
from machineshop.services.secret_rules import MAX_VALUE_BYTES, SecretFields, check
from machineshop.services.secrets import SecretService
from machineshop.store import secrets as store
from machineshop.store.database import Database
from machineshop.store.tables import metadata
from machineshop.store.tables import secrets as table
from migrated import migrated_database

DAY = 86_400
CANARY = "canary-d41d8cd98f00b204"


def fields(name: str = "hello-TOKEN", value: str = CANARY, **more: object) -> SecretFields:
    return SecretFields(name=name, value=value, **more)  # type: ignore[arg-type]


on_both = pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite, and Postgres too for what rests on its rows and locks."""
    return migrated_database(getattr(request, "param", "sqlite"), request, tmp_path)


@pytest.fixture
def project_id(admin: Identity) -> str:
    return admin.project.id


@on_both
async def test_a_value_comes_back_to_a_start_alone(secrets: SecretService, project_id: str) -> None:
    secret, _ = await secrets.create(project_id, fields(description="a token"), "key-1")

    assert CANARY not in repr(secret) + repr(await secrets.list_all(project_id)) + repr(fields())
    assert await secrets.reveal(project_id, {"TOKEN": "hello-TOKEN", "AGAIN": "hello-TOKEN"}) == {
        "TOKEN": CANARY,
        "AGAIN": CANARY,
    }
    assert (await secrets.get(project_id, secret.id)).description == "a token"


@on_both
async def test_the_store_holds_the_value_sealed(secrets: SecretService, project_id: str, database: Database) -> None:
    for name in ("one", "two"):
        await secrets.create(project_id, fields(name), "key-1")

    def rows(conn: Connection) -> list[tuple[bytes, bytes]]:
        return [(bytes(nonce), bytes(text)) for nonce, text in conn.execute(select(table.c.nonce, table.c.ciphertext))]

    def everything(conn: Connection) -> str:
        cells = [cell for each in metadata.sorted_tables for row in conn.execute(select(each)) for cell in row]
        return "\n".join(cell.hex() if isinstance(cell, bytes) else str(cell) for cell in cells)

    (nonce, ciphertext), (other_nonce, other) = await database.read(rows)
    dump = await database.read(everything)
    assert ciphertext.hex() in dump
    assert CANARY not in dump
    assert CANARY.encode().hex() not in dump
    assert nonce != other_nonce
    assert ciphertext != other, "the same value looks different each time"


async def test_a_sealed_value_is_bound_to_its_project_and_name(
    secrets: SecretService, project_id: str, database: Database
) -> None:
    await secrets.create(project_id, fields("mine"), "key-1")
    await secrets.create(project_id, fields("yours", "other"), "key-1")

    def swap(conn: Connection) -> None:
        stolen = conn.execute(select(table.c.nonce, table.c.ciphertext).where(table.c.name == "mine")).one()
        conn.execute(table.update().where(table.c.name == "yours").values(nonce=stolen[0], ciphertext=stolen[1]))

    await database.write(swap)
    with pytest.raises(SecretUnreadable, match="'yours' is damaged"):
        await secrets.reveal(project_id, {"V": "yours"})
    assert await secrets.reveal(project_id, {"V": "mine"}) == {"V": CANARY}


@pytest.mark.parametrize("name", ["", "a b", "a" * 101, "ä", "../x", "a//b", "/a", "a/", ".", "a\n", str(UUID(int=7))])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a secret's name"):
        check(fields(name))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"value": ""}, "value"),
        ({"value": "x" * (MAX_VALUE_BYTES + 1)}, "value"),
        ({"value": "a\x00b"}, "value"),
        ({"description": "x" * 501}, "description"),
        ({"description": "a\x00b"}, "description"),
        ({"ttl_seconds": DAY - 1}, "ttl_seconds"),
        ({"ttl_seconds": 14 * DAY + 1}, "ttl_seconds"),
    ],
)
def test_what_is_out_of_bounds_is_refused_without_quoting_the_value(more: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(msgspec.structs.replace(fields(), **more))
    assert refused.value.param == param
    assert CANARY not in refused.value.message


async def test_name_and_value_are_required(secrets: SecretService, project_id: str) -> None:
    for given, missing in ((SecretFields(value="x"), "name"), (SecretFields(name="x"), "value")):
        with pytest.raises(MalformedBody) as refused:
            await secrets.create(project_id, given, "key-1")
        assert refused.value.param == missing


@on_both
async def test_a_name_is_given_once_in_a_project(
    secrets: SecretService, project_id: str, identity: IdentityService
) -> None:
    other, _ = await identity.create_key("other", "key", Scope.DEVELOPER)
    await secrets.create(project_id, fields(value="mine"), "key-1")
    await secrets.create(other.project_id, fields(value="theirs"), other.id)

    with pytest.raises(AlreadyExists, match="already exists"):
        await secrets.create(project_id, fields(), "key-1")
    assert await secrets.reveal(project_id, {"V": "hello-TOKEN"}) == {"V": "mine"}
    assert await secrets.reveal(other.project_id, {"V": "hello-TOKEN"}) == {"V": "theirs"}


async def test_a_change_leaves_the_rest_as_it_is(secrets: SecretService, project_id: str, clock: Clock) -> None:
    made, _ = await secrets.create(project_id, fields(description="first"), "key-1")
    clock.now += 5

    described, _ = await secrets.update(project_id, made.name, SecretFields(description="second"), "key-2")
    valued, _ = await secrets.update(project_id, made.id, SecretFields(value="new", name=made.name), "key-3")

    assert (described.description, described.created_by, described.last_updated_by) == ("second", "key-1", "key-2")
    assert (valued.description, valued.created_at, valued.updated_at) == ("second", made.created_at, clock.now)
    assert await secrets.reveal(project_id, {"V": made.name}) == {"V": "new"}
    with pytest.raises(InvalidRequest, match="name cannot be changed"):
        await secrets.update(project_id, made.name, SecretFields(name="another"), "key-1")
    with pytest.raises(NotFound):
        await secrets.update(project_id, "nothing", SecretFields(value="x"), "key-1")


async def test_time_to_live_begins_anew_with_a_value_or_a_new_one(
    secrets: SecretService, project_id: str, clock: Clock
) -> None:
    secret, _ = await secrets.create(project_id, fields(ttl_seconds=2 * DAY), "key-1")
    assert secret.expires_at == clock.now + 2 * DAY

    async def after(hours: int, **changes: object) -> float | None:
        clock.now += hours * 3600
        changed, _ = await secrets.update(project_id, secret.name, SecretFields(**changes), "k")  # type: ignore[arg-type]
        return changed.expires_at

    assert await after(1, description="says nothing of time") == secret.expires_at
    assert await after(1, value="new") == clock.now + 2 * DAY
    assert await after(1, ttl_seconds=DAY) == clock.now + DAY
    assert await after(1, ttl_seconds=None) is None
    assert await after(1, value="newer") is None


@on_both
async def test_what_has_expired_is_gone_at_once_and_deleted_soon(
    secrets: SecretService, project_id: str, clock: Clock, database: Database
) -> None:
    await secrets.create(project_id, fields("short", ttl_seconds=DAY), "key-1")
    await secrets.create(project_id, fields("long"), "key-1")
    clock.now += DAY

    assert [secret.name for secret in await secrets.list_all(project_id)] == ["long"]
    with pytest.raises(NotFound):
        await secrets.get(project_id, "short")
    with pytest.raises(SecretMissing, match="'short' \\(for the variable V\\)"):
        await secrets.reveal(project_id, {"V": "short", "W": "long"})
    assert await database.read(store.count_of_other_keys, "") == 2
    assert [secret.name for secret in await secrets.expire(clock.now)] == ["short"]
    assert await database.read(store.count_of_other_keys, "") == 1


@on_both
async def test_an_expired_name_is_free_before_the_loop_has_come(
    secrets: SecretService, project_id: str, clock: Clock
) -> None:
    await secrets.create(project_id, fields(ttl_seconds=DAY), "key-1")
    clock.now += DAY

    await secrets.create(project_id, fields(value="again"), "key-1")

    assert await secrets.reveal(project_id, {"V": "hello-TOKEN"}) == {"V": "again"}


async def test_a_secret_that_expires_within_a_day_is_warned_of_once(
    secrets: SecretService,
    project_id: str,
    clock: Clock,
    deployments: DeploymentService,
    deployment: Deployment,
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret, _ = await secrets.create(project_id, fields(ttl_seconds=2 * DAY), "key-1")
    await deployments.update(
        project_id, deployment.name, {"environment_variables": [{"name": "T", "value_from_secret": secret.name}]}
    )

    async def warnings() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="machineshop.services.secrets"):
            await secrets.expire(clock.now)
        return [record.getMessage() for record in caplog.records]

    assert await warnings() == []
    clock.now += DAY + 3600
    [warning] = await warnings()
    assert f"name={secret.name} hours=23.0 used_by={deployment.name}" in warning
    assert await warnings() == [], "once is enough"
    await secrets.update(project_id, secret.name, SecretFields(value="renewed"), "key-1")
    clock.now += 2 * DAY
    assert [line.split()[0] for line in await warnings()] == ["secret.expired"]


async def test_deployments_name_only_secrets_that_there_are(
    secrets: SecretService, project_id: str, deployments: DeploymentService, deployment: Deployment
) -> None:
    variables = [{"name": "T", "value_from_secret": "hello-TOKEN"}]

    with pytest.raises(SecretMissing, match="'hello-TOKEN' \\(for the variable T\\)") as refused:
        await deployments.update(project_id, deployment.name, {"environment_variables": variables})
    assert refused.value.param == "environment_variables"
    new = {"name": "another", "image": "r/n@sha256:1", "gpu_type": "none", "environment_variables": variables}
    with pytest.raises(SecretMissing):
        await deployments.create(project_id, new)
    await secrets.create(project_id, fields(), "key-1")
    await deployments.create(project_id, new)

    gone, used_by = await secrets.delete(project_id, "hello-TOKEN")
    assert (gone.name, used_by) == ("hello-TOKEN", ["another"])
    # Whoever only changes something else is not kept from it.
    await deployments.update(project_id, "another", {"max_replicas": 3})


async def test_a_new_value_replaces_replicas_where_that_is_asked_for(
    secrets: SecretService, project_id: str, deployments: DeploymentService, deployment: Deployment
) -> None:
    await secrets.create(project_id, fields(), "key-1")
    variables = [{"name": "T", "value_from_secret": "hello-TOKEN"}]
    before = await deployments.update(project_id, deployment.name, {"environment_variables": variables})
    await deployments.create(project_id, {"name": "other", "image": "r/n@sha256:1", "gpu_type": "none"})

    _, unasked = await secrets.update(project_id, "hello-TOKEN", SecretFields(value="new"), "key-1")
    assert (unasked, (await deployments.get(project_id, deployment.name)).revision_id) == ([], before.revision_id)
    _, redeployed = await secrets.update(project_id, "hello-TOKEN", SecretFields(value="x", redeploy=True), "key-1")

    after = await deployments.get(project_id, deployment.name)
    assert redeployed == [deployment.name]
    assert (after.revision_number, after.config) == (before.revision_number + 1, before.config)
    [event, *_] = await deployments.list_events(project_id, deployment.name, 10, None)
    assert (event.action, event.revision_id) == ("system", after.revision_id)


async def test_no_more_than_so_many(secrets: SecretService, project_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_SECRETS", 2)
    await secrets.create(project_id, fields("a"), "key-1")
    await secrets.create(project_id, fields("b"), "key-1")
    with pytest.raises(InvalidRequest, match="has 2 secrets, and no more may be"):
        await secrets.create(project_id, fields("c"), "key-1")


async def test_a_server_that_lacks_the_key_says_so_and_serves_on(
    secrets: SecretService,
    project_id: str,
    database: Database,
    deployments: DeploymentService,
    keys: KeyRing,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await secrets.create(project_id, fields(), "key-1")
    elsewhere = KeyRing(tmp_path / "another" / "secrets-key")
    (tmp_path / "another").mkdir()
    stranger = SecretService(database, elsewhere, deployments)

    await stranger.open()

    assert "secrets.key_missing" in caplog.text
    assert not (tmp_path / "another" / "secrets-key").exists(), "no second key takes the lost one's place"
    assert [secret.name for secret in await stranger.list_all(project_id)] == ["hello-TOKEN"]
    for work in (
        stranger.reveal(project_id, {"V": "hello-TOKEN"}),
        stranger.create(project_id, fields("b"), "key-1"),
    ):
        with pytest.raises(SecretsKeyMissing, match="bring it back from a backup"):
            await work
    (tmp_path / "another" / "secrets-key").write_bytes((tmp_path / "secrets-key").read_bytes())
    assert await stranger.reveal(project_id, {"V": "hello-TOKEN"}) == {"V": CANARY}


async def test_a_lost_key_that_no_secret_needs_is_replaced(
    secrets: SecretService, project_id: str, database: Database, deployments: DeploymentService, tmp_path: Path
) -> None:
    (tmp_path / "secrets-key").unlink()
    again = SecretService(database, KeyRing(tmp_path / "secrets-key"), deployments)
    await again.open()
    await again.create(project_id, fields(), "key-1")
    assert await again.reveal(project_id, {"V": "hello-TOKEN"}) == {"V": CANARY}


@on_both
async def test_servers_that_start_at_once_settle_on_one_key(
    database: Database, deployments: DeploymentService, admin: Identity, tmp_path: Path
) -> None:
    servers = [SecretService(database, KeyRing(tmp_path / "secrets-key"), deployments) for _ in range(5)]
    await asyncio.gather(*[server.open() for server in servers])
    for number, server in enumerate(servers):
        await server.create(admin.project.id, fields(f"of-{number}"), "key-1")
    for server in servers:
        assert len(await server.reveal(admin.project.id, {str(n): f"of-{n}" for n in range(5)})) == 5


def test_sealing_needs_the_same_key_project_and_name() -> None:
    key = SealingKey.random()
    sealed = key.seal("p", "n", "välue")
    assert key.open("p", "n", sealed) == "välue"
    damaged = SealedValue(
        key_id=key.id, nonce=sealed.nonce, ciphertext=bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]
    )
    for opened in (("q", "n", sealed), ("p", "m", sealed), ("p", "n", damaged)):
        with pytest.raises(SecretUnreadable):
            key.open(*opened)
    with pytest.raises(SecretUnreadable):
        SealingKey.random().open("p", "n", sealed)
    assert "välue" not in repr(sealed)
