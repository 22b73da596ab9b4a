"""The outbox of webhooks: what is to be told about ended jobs, written in the transaction that ends them.

`due` and `take` begin a try, `deliver` and `postpone` end it. A try is counted before anything is sent, so that no two
sends, whatever is killed when, ever have the same number.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, select

from machineshop.states import WebhookState
from machineshop.store.announcements import announce
from machineshop.store.statement import Statement
from machineshop.store.tables import webhooks

# Announced when something was put into the outbox.
WEBHOOKS = "webhooks"


class WebhookKey(NamedTuple):
    """Which webhook: a job's last attempt, 0 where it never had one."""

    job_id: str
    attempt: int


class DueWebhook(NamedTuple):
    """One that may be sent now."""

    key: WebhookKey
    host: str


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """One try, counted already."""

    key: WebhookKey
    project_id: str
    url: str
    host: str
    number: int
    """Which try of this webhook it is, from 1 on."""


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """What has been told about a job so far."""

    attempt: int
    url: str
    tries: int
    delivered_at: float | None
    next_try_at: float | None
    error: str | None

    @property
    def state(self) -> WebhookState:
        """How far it is."""
        if self.delivered_at is not None:
            return WebhookState.DELIVERED
        if self.next_try_at is None:
            return WebhookState.GIVEN_UP
        return WebhookState.PENDING if self.error is None else WebhookState.RETRYING


def enqueue(conn: Connection, project_id: str, job_id: str, attempt: int, url: str, now: float) -> None:
    """Have it told that a job has ended; once for each attempt, however often this is called."""
    values = {"project_id": project_id, "job_id": job_id, "attempt": attempt, "url": url, "now": now}
    _ENQUEUE.run(conn, {**values, "host": host_of(url)})
    announce(conn, WEBHOOKS)


def host_of(url: str) -> str:
    """Whom a URL burdens; empty where it cannot be told."""
    try:
        return (urlsplit(url).hostname or "")[:255]
    except ValueError:
        return ""


def due(conn: Connection, now: float, without_hosts: Collection[str], limit: int) -> list[DueWebhook]:
    """Webhooks that are to be sent by now, those that have waited longest first, and none to some hosts."""
    query = select(webhooks.c.job_id, webhooks.c.attempt, webhooks.c.host).where(webhooks.c.next_try_at <= now)
    if without_hosts:
        query = query.where(webhooks.c.host.not_in(sorted(without_hosts)))
    rows = conn.execute(query.order_by(webhooks.c.next_try_at).limit(limit))
    return [DueWebhook(WebhookKey(job_id, attempt), host) for job_id, attempt, host in rows]


def take(conn: Connection, keys: Sequence[WebhookKey], now: float, until: float) -> list[Send]:
    """Begin a try of each that is still due: nobody else begins another one before `until`."""
    sends = []
    for key in sorted(keys):  # in one order, so that two servers never wait for each other
        row = _TAKE.one(conn, {**key._asdict(), "now": now, "until": until})
        if row is not None:
            project_id, url, host, number = row
            sends.append(Send(key=key, project_id=project_id, url=url, host=host, number=number))
    return sends


def deliver(conn: Connection, send: Send, now: float) -> bool:
    """The receiver took it; False where this try had been given up for lost, and another one has begun."""
    values = {**send.key._asdict(), "number": send.number, "now": now}
    return _DELIVER.run(conn, values).rowcount == 1


def postpone(conn: Connection, send: Send, next_try_at: float | None, error: str) -> bool:
    """The receiver did not take it; None: it is given up. Returns as `deliver`."""
    values = {**send.key._asdict(), "number": send.number, "next_try_at": next_try_at, "error": error}
    return _POSTPONE.run(conn, values).rowcount == 1


def of_job(conn: Connection, job_id: str) -> list[Webhook]:
    """What has been told about a job, and what is still to be told."""
    return [Webhook(**dict(zip(_FIELDS, row, strict=True))) for row in _OF_JOB.all(conn, {"job_id": job_id})]


_ENQUEUE = Statement(
    "INSERT INTO webhooks (job_id, attempt, project_id, url, host, tries, next_try_at, created_at) "
    "VALUES (:job_id, :attempt, :project_id, :url, :host, 0, :now, :now) ON CONFLICT (job_id, attempt) DO NOTHING"
)
_ONE = "job_id = :job_id AND attempt = :attempt"
_TAKE = Statement(
    f"UPDATE webhooks SET tries = tries + 1, next_try_at = :until WHERE {_ONE} AND next_try_at <= :now "
    "RETURNING project_id, url, host, tries"
)
_OPEN = f"{_ONE} AND tries = :number AND next_try_at IS NOT NULL"
_DELIVER = Statement(f"UPDATE webhooks SET delivered_at = :now, next_try_at = NULL, error = NULL WHERE {_OPEN}")
_POSTPONE = Statement(f"UPDATE webhooks SET next_try_at = :next_try_at, error = :error WHERE {_OPEN}")
_FIELDS = Webhook.__struct_fields__
_OF_JOB = Statement(f"SELECT {', '.join(_FIELDS)} FROM webhooks WHERE job_id = :job_id ORDER BY attempt")
