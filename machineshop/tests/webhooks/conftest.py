"""A receiver, and what sends to it."""

from collections.abc import AsyncIterator

import pytest

from factory import Clock, Jobs
from machineshop.api.job_view import job_view
from machineshop.config import parse_networks
from machineshop.control.deliverer import Deliverer
from machineshop.control.sender import Sender
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
def webhooks(database: Database, clock: Clock) -> WebhookService:
    return WebhookService(database, job_view, clock)


@pytest.fixture
async def outbox(database: Database, webhooks: WebhookService, jobs: Jobs, clock: Clock) -> AsyncIterator[Outbox]:
    targets = Targets(parse_networks(["127.0.0.0/8"]), loopback=False, own_port=lambda: 0)
    deliverer = Deliverer(database, webhooks, Sender(targets), clock=clock, chance=lambda: 0.5)
    outbox = Outbox(database, webhooks, jobs, clock, deliverer)
    yield outbox
    await outbox.close()
