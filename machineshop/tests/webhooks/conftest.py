"""A receiver, and what sends to it."""

from collections.abc import AsyncIterator

import pytest

from factory import Clock, Jobs
from machineshop.api.job_view import job_view
from machineshop.config import parse_networks
from machineshop.control.deliverer import Deliverer
from machineshop.control.sender import Sender
from machineshop.services.keyring import KeyRing
from machineshop.services.secrets import SecretService
from machineshop.services.signing import SigningService
from machineshop.services.targets import Targets
from machineshop.services.webhooks import WebhookService
from machineshop.store.database import Database
from webhooks.outbox import Outbox
from webhooks.receiver import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def signing(database: Database, keys: KeyRing, secrets: SecretService, clock: Clock) -> SigningService:
    """`secrets` has settled on the key."""
    return SigningService(database, keys, clock)


@pytest.fixture
def webhooks(database: Database, signing: SigningService, clock: Clock) -> WebhookService:
    return WebhookService(database, signing, job_view, clock)


@pytest.fixture
async def outbox(
    database: Database, webhooks: WebhookService, signing: SigningService, jobs: Jobs, clock: Clock
) -> AsyncIterator[Outbox]:
    targets = Targets(parse_networks(["127.0.0.0/8"]), loopback=False, own_port=lambda: 0)
    deliverer = Deliverer(database, webhooks, Sender(targets), clock=clock, chance=lambda: 0.5)
    outbox = Outbox(database, webhooks, signing, jobs, clock, deliverer)
    yield outbox
    await outbox.close()
