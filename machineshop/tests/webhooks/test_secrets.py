"""The secrets behind the signatures: one for each project, and an old one signs along for a day."""

import asyncio
import base64

from factory import Clock
from machineshop.models import Deployment
from machineshop.services.identity import IdentityService
from machineshop.services.webhooks import WebhookService
from machineshop.store import webhooks as store
from machineshop.store.database import Database
from webhooks.outbox import Outbox
from webhooks.receiver import Receiver


async def test_a_secret_is_made_once_for_each_project(
    webhooks: WebhookService, deployment: Deployment, identity: IdentityService, database: Database, clock: Clock
) -> None:
    made = await asyncio.gather(*[webhooks.signing_secrets(deployment.project_id) for _ in range(10)])
    again = await WebhookService(database, str, clock).signing_secrets(deployment.project_id)
    assert {secrets.current for secrets in made} == {again.current}
    assert len(base64.b64decode(again.current.removeprefix("whsec_"), validate=True)) == 32
    other, _ = await identity.create_key("other", "key", (await identity.list_keys())[0].scope)
    assert (await webhooks.signing_secrets(other.project_id)).current != again.current


async def test_the_old_secret_signs_along_for_a_day(outbox: Outbox, receiver: Receiver, clock: Clock) -> None:
    project_id = outbox.jobs.project_id
    old = (await outbox.webhooks.signing_secrets(project_id)).current
    rotated = await outbox.webhooks.rotate_secret(project_id)
    assert rotated.previous == old != rotated.current
    assert rotated.previous_until == clock.now + 86400
    for _ in range(2):
        await outbox.done(receiver.url)
        await outbox.look()
        clock.now += 86400
    both, new_alone = receiver.received
    assert both.headers["webhook-signature"] == f"{both.signature(rotated.current)} {both.signature(old)}"
    assert new_alone.headers["webhook-signature"] == new_alone.signature(rotated.current)


async def test_a_second_rotation_ends_the_oldest(webhooks: WebhookService, deployment: Deployment) -> None:
    first = (await webhooks.signing_secrets(deployment.project_id)).current
    second = (await webhooks.rotate_secret(deployment.project_id)).current
    third = await webhooks.rotate_secret(deployment.project_id)
    assert third.previous == second
    assert first not in {third.current, third.previous}


async def test_a_first_secret_that_is_rotated_has_none_before_it(
    database: Database, deployment: Deployment, clock: Clock
) -> None:
    secrets = await database.write(store.rotate_secret, deployment.project_id, "whsec_YQ==", clock.now, clock.now + 1)
    assert secrets.at(clock.now) == ["whsec_YQ=="]
