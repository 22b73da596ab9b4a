"""The secrets behind the signatures: one for each project, sealed, and an old one signs along for a day."""

import asyncio
import base64
from pathlib import Path

import pytest
from sqlalchemy import text

from factory import Clock
from machineshop.errors import SecretsKeyMissing
from machineshop.models import Deployment
from machineshop.services.identity import IdentityService
from machineshop.services.keyring import KeyRing
from machineshop.services.sealing import SecretUnreadable
from machineshop.services.secret_rotation import rotate
from machineshop.services.signing import SigningService
from machineshop.store.database import Database, sqlite_file
from webhooks.outbox import Outbox
from webhooks.receiver import Receiver

IN_THE_CLEAR = "INSERT INTO webhook_secrets VALUES (:project, 'whsec_b2xk', 'whsec_b2xkZXI=', :until, 1.0)"


async def test_a_secret_is_made_once_for_each_project(
    signing: SigningService,
    deployment: Deployment,
    identity: IdentityService,
    database: Database,
    keys: KeyRing,
    clock: Clock,
) -> None:
    made = await asyncio.gather(*[signing.of_project(deployment.project_id) for _ in range(10)])
    again = await SigningService(database, keys, clock).of_project(deployment.project_id)
    assert {secrets.current for secrets in made} == {again.current}
    assert len(base64.b64decode(again.current.removeprefix("whsec_"), validate=True)) == 32
    other, _ = await identity.create_key("other", "key", (await identity.list_keys())[0].scope)
    assert (await signing.of_project(other.project_id)).current != again.current


async def test_the_old_secret_signs_along_for_a_day(outbox: Outbox, receiver: Receiver, clock: Clock) -> None:
    project_id = outbox.jobs.project_id
    old = (await outbox.signing.of_project(project_id)).current
    rotated = await outbox.signing.rotate(project_id)
    assert rotated.previous == old != rotated.current
    assert rotated.previous_until == clock.now + 86400
    for _ in range(2):
        await outbox.done(receiver.url)
        await outbox.look()
        clock.now += 86400
    both, new_alone = receiver.received
    assert both.headers["webhook-signature"] == f"{both.signature(rotated.current)} {both.signature(old)}"
    assert new_alone.headers["webhook-signature"] == new_alone.signature(rotated.current)


async def test_a_second_rotation_ends_the_oldest(signing: SigningService, deployment: Deployment) -> None:
    first = (await signing.of_project(deployment.project_id)).current
    second = (await signing.rotate(deployment.project_id)).current
    third = await signing.rotate(deployment.project_id)
    assert third.previous == second
    assert first not in {third.current, third.previous}


async def test_a_first_secret_that_is_rotated_has_none_before_it(
    signing: SigningService, deployment: Deployment, clock: Clock
) -> None:
    secrets = await signing.rotate(deployment.project_id)
    assert secrets.at(clock.now) == [secrets.current]


async def test_rotations_at_the_same_time_lose_none_of_the_secrets_that_were_shown(
    signing: SigningService, deployment: Deployment
) -> None:
    await signing.of_project(deployment.project_id)
    shown = await asyncio.gather(*[signing.rotate(deployment.project_id) for _ in range(2)])
    last = await signing.of_project(deployment.project_id)
    assert {last.current, last.previous} == {secrets.current for secrets in shown}


async def test_what_an_earlier_build_left_in_the_clear_is_sealed_at_the_start(
    signing: SigningService, deployment: Deployment, database: Database, database_url: str, clock: Clock
) -> None:
    values = {"project": deployment.project_id, "until": clock.now + 5}
    await database.write(lambda conn: conn.execute(text(IN_THE_CLEAR), values))
    for _ in range(2):
        await signing.open()
        found = await signing.of_project(deployment.project_id)
        assert (found.current, found.previous, found.previous_until) == ("whsec_b2xk", "whsec_b2xkZXI=", clock.now + 5)
    assert await database.read(lambda conn: conn.execute(text("SELECT count(*) FROM webhook_secrets")).scalar()) == 0
    if (file := sqlite_file(database_url)) is not None:
        await database.write(lambda conn: None)
        await asyncio.to_thread(database.close)  # what is in the log of changes goes into the file
        assert b"whsec_" not in file.read_bytes()


async def test_it_cannot_be_opened_without_the_key_or_as_another_projects(
    signing: SigningService,
    deployment: Deployment,
    identity: IdentityService,
    database: Database,
    clock: Clock,
    tmp_path: Path,
) -> None:
    await signing.of_project(deployment.project_id)
    with pytest.raises(SecretsKeyMissing):
        await SigningService(database, KeyRing(tmp_path / "none"), clock).of_project(deployment.project_id)
    other, _ = await identity.create_key("other", "key", (await identity.list_keys())[0].scope)
    moved = "UPDATE webhook_signing SET project_id = :project"
    await database.write(lambda conn: conn.execute(text(moved), {"project": other.project_id}))
    with pytest.raises(SecretUnreadable):
        await signing.of_project(other.project_id)


async def test_a_rotation_of_the_key_seals_it_anew(
    signing: SigningService, deployment: Deployment, database: Database, keys: KeyRing
) -> None:
    before = await signing.of_project(deployment.project_id)
    old_key = keys.newest().id
    rotated = await rotate(database, keys)
    assert rotated.sealed_anew == 1
    assert keys.newest().id == rotated.key_id != old_key
    assert await signing.of_project(deployment.project_id) == before
