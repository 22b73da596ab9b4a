"""What is told about ended jobs: the messages and their signatures; the secrets behind those are `signing`'s."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec
from sqlalchemy import Connection

from machineshop.errors import NotFound
from machineshop.models import Job
from machineshop.services.signing import SECRET_PREFIX, SigningSecrets, SigningService
from machineshop.states import TERMINAL_STATES
from machineshop.store import jobs
from machineshop.store import webhooks as store
from machineshop.store.database import Database
from machineshop.store.webhooks import Send, Webhook


class Message(msgspec.Struct, frozen=True):
    """One webhook as it is sent."""

    headers: Mapping[str, str]
    body: bytes


class WebhookService:
    """The webhooks of all projects.

    Arguments:
        database: The store.
        signing: What messages are signed with.
        view: How a job is shown to people, which is what a message says.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        signing: SigningService,
        view: Callable[[Job], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._signing = signing
        self._view = view
        self._clock = clock

    async def of_job(self, project_id: str, model: str, job_id: str) -> list[Webhook]:
        """What has been told about a job, and what is still to be told.

        Raises:
            NotFound: No such job of this deployment.
        """
        if await self._database.read(jobs.get, project_id, model, job_id) is None:
            raise NotFound(what="job", id=job_id)
        return await self._database.read(store.of_job, job_id)

    async def of_ended(self, job: Job) -> Webhook | None:
        """What became of the webhook of a job; None where it has none, or has not ended."""
        if job.webhook_url is None or job.state not in TERMINAL_STATES:
            return None
        told = await self._database.read(store.of_job, job.id)
        return told[-1] if told else None

    async def message(self, send: Send) -> Message | None:
        """What one send says; None where its job has been removed."""
        signing = await self._signing.of_project(send.project_id)
        # A result may be large, so it is read, written and signed off the event loop.
        return await self._database.read(self._message, send, signing)

    def _message(self, conn: Connection, send: Send, signing: SigningSecrets) -> Message | None:
        job = jobs.get_by_id(conn, send.project_id, send.key.job_id)
        if job is None:
            return None
        now = self._clock()
        body = msgspec.json.encode(self._view(job))
        message_id = f"{send.key.job_id}.{send.key.attempt}"
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": sign(signing.at(now), message_id, int(now), body),
            "webhook-delivery": f"{message_id}.{send.number}",
        }
        return Message(headers, body)


def sign(with_secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The signatures of a message, one for each secret.

    Arguments:
        with_secrets: Secrets as receivers are given them.
        message_id: The same for every try.
        timestamp: When it is sent, in seconds since the epoch.
        body: The bytes that are sent.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + _signature(secret, signed) for secret in with_secrets)


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
