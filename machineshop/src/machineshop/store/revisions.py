"""The revisions of deployments, how they fared, and the events that made one of them the active one."""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, select

from machineshop.models import Deployment, Revision, RevisionEvent, RevisionFailure
from machineshop.store.announcements import announce
from machineshop.store.deployment_rows import DEPLOYMENTS, decode_config, encode_config
from machineshop.store.tables import deployments, revision_events, revisions

KEPT_EVENTS = 200
# Beside the active one and the last that worked: one that is changed every few minutes must not fill the store.
KEPT_REVISIONS = 50
# Longer than it takes until somebody has looked whether a revision's replicas are ready, also where servers change.
UNKNOWN_SECONDS = 60.0
# What people are shown of an id: its end, since the ids of one hour begin alike.
SHORT_ID = 8
_FAILURE = msgspec.json.Decoder(RevisionFailure)


def add(conn: Connection, deployment: Deployment) -> None:
    """Keep the configuration of a deployment as its newest revision; the oldest go when there are too many."""
    conn.execute(
        revisions.insert().values(
            id=deployment.revision_id,
            deployment_id=deployment.id,
            number=deployment.revision_number,
            config=encode_config(deployment.config),
            created_at=deployment.updated_at,
        )
    )
    old = (revisions.c.deployment_id == deployment.id) & (
        revisions.c.number <= deployment.revision_number - KEPT_REVISIONS
    )
    # What serves while newer ones fail, however many there are, and what to go back to.
    working = last_that_worked(conn, deployment.id, deployment.revision_id)
    kept = {deployment.revision_id} if working is None else {deployment.revision_id, working.id}
    conn.execute(delete(revisions).where(old & revisions.c.id.not_in(sorted(kept))))


def activate(conn: Connection, deployment: Deployment, action: str) -> None:
    """Note that the deployment's revision is the active one from now on."""
    last = conn.execute(
        select(func.coalesce(func.max(revision_events.c.number), 0)).where(
            revision_events.c.deployment_id == deployment.id
        )
    ).scalar_one()
    conn.execute(
        revision_events.insert().values(
            deployment_id=deployment.id,
            number=last + 1,
            revision_id=deployment.revision_id,
            revision_number=deployment.revision_number,
            image=deployment.config.image,
            action=action,
            activated_at=deployment.updated_at,
        )
    )
    old = (revision_events.c.deployment_id == deployment.id) & (revision_events.c.number <= last + 1 - KEPT_EVENTS)
    conn.execute(delete(revision_events).where(old))


def last_number(conn: Connection, deployment_id: str) -> int:
    """The number of the newest revision, which need not be the active one."""
    query = select(func.coalesce(func.max(revisions.c.number), 0)).where(revisions.c.deployment_id == deployment_id)
    number: int = conn.execute(query).scalar_one()
    return number


def list_events(conn: Connection, deployment_id: str, limit: int, before: int | None) -> list[RevisionEvent]:
    """What became active when, the newest first."""
    query = (
        select(revision_events, revisions.c.ready_at, revisions.c.failure)
        .outerjoin(revisions, revisions.c.id == revision_events.c.revision_id)
        .where(revision_events.c.deployment_id == deployment_id)
        .order_by(revision_events.c.number.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(revision_events.c.number < before)
    return [_event(dict(row)) for row in conn.execute(query).mappings()]


def get(conn: Connection, deployment_id: str, number_or_id: str) -> Revision | None:
    """A revision by its number, its id or the end of its id, from `SHORT_ID` characters on, that no other has."""
    condition = revisions.c.id == number_or_id
    if number_or_id.isdecimal() and len(number_or_id) < 10:
        condition = revisions.c.number == int(number_or_id)
    found = _those(conn, deployment_id, condition)
    if not found and len(number_or_id) >= SHORT_ID:
        found = _those(conn, deployment_id, revisions.c.id.endswith(number_or_id, autoescape=True))
    return found[0] if len(found) == 1 else None


def numbers(conn: Connection, deployment_id: str, revision_ids: Collection[str]) -> dict[str, int]:
    """The numbers of some revisions of a deployment, by their ids; without those that are no longer kept."""
    query = select(revisions.c.id, revisions.c.number).where(
        revisions.c.deployment_id == deployment_id, revisions.c.id.in_(sorted(revision_ids))
    )
    return {row.id: row.number for row in conn.execute(query)}


def _those(conn: Connection, deployment_id: str, condition: ColumnElement[bool]) -> list[Revision]:
    """The revisions of a deployment, two at most."""
    query = select(revisions).where(revisions.c.deployment_id == deployment_id, condition).limit(2)
    return [_revision(dict(row)) for row in conn.execute(query).mappings()]


def last_that_worked(conn: Connection, deployment_id: str, revision_id: str) -> Revision | None:
    """The revision that was active last of those that have been ready, other than this one."""
    query = (
        select(revisions)
        .outerjoin(revision_events, _event_of(deployment_id))
        .where(
            revisions.c.deployment_id == deployment_id,
            revisions.c.id != revision_id,
            revisions.c.ready_at.is_not(None),
        )
        .order_by(func.coalesce(revision_events.c.number, 0).desc(), revisions.c.number.desc())
        .limit(1)
    )
    row = conn.execute(query).mappings().first()
    return None if row is None else _revision(dict(row))


def may_serve(conn: Connection, deployment_id: str, revision_id: str, now: float) -> list[Revision]:
    """The revisions whose replicas may serve until this one, the active one, has been ready; the newest first.

    That is the last one that worked, and those after it that were replaced so lately that it is not known yet whether
    they do.
    """
    query = (
        select(revisions, revision_events.c.activated_at)
        .join(revision_events, _event_of(deployment_id))
        .where(revisions.c.deployment_id == deployment_id)
        .order_by(revision_events.c.number.desc())
    )
    found: dict[str, Revision] = {}
    replaced_at = now
    for row in conn.execute(query).mappings():
        fields = dict(row)
        activated_at = fields.pop("activated_at")
        works = fields["ready_at"] is not None
        unknown = fields["failure"] is None and now - replaced_at < UNKNOWN_SECONDS
        if fields["id"] != revision_id and (works or unknown):
            found.setdefault(fields["id"], _revision(fields))
            if works:
                return list(found.values())
        replaced_at = activated_at
    working = last_that_worked(conn, deployment_id, revision_id)  # its event may be one of those no longer kept
    return list(found.values()) if working is None else [*found.values(), working]


def _event_of(deployment_id: str) -> ColumnElement[bool]:
    """Joins a revision with its events. The deployment is said so that those of no other are looked through."""
    return (revision_events.c.deployment_id == deployment_id) & (revision_events.c.revision_id == revisions.c.id)


def last_failure(conn: Connection, deployment: Deployment) -> Revision | None:
    """The newest revision that did not get ready: the active one, or one after it from which the platform went back."""
    query = (
        select(revisions)
        .where(
            revisions.c.deployment_id == deployment.id,
            revisions.c.number >= deployment.revision_number,
            revisions.c.failure.is_not(None),
        )
        .order_by(revisions.c.number.desc())
        .limit(1)
    )
    row = conn.execute(query).mappings().first()
    return None if row is None else _revision(dict(row))


def unsettled(conn: Connection) -> set[str]:
    """The active revisions that have not been ready yet, of all projects."""
    query = (
        select(deployments.c.revision_id)
        .join(revisions, revisions.c.id == deployments.c.revision_id)
        .where(deployments.c.deleted_at.is_(None), revisions.c.ready_at.is_(None))
    )
    return set(conn.execute(query).scalars())


def note_ready(conn: Connection, deployment_id: str, revision_id: str, now: float) -> None:
    """A revision works, as its replicas have been ready: what kept it from that before is forgotten."""
    this = (revisions.c.deployment_id == deployment_id) & (revisions.c.id == revision_id)
    conn.execute(revisions.update().where(this, revisions.c.ready_at.is_(None)).values(ready_at=now, failure=None))


def note_failure(conn: Connection, deployment_id: str, revision_id: str, failure: RevisionFailure) -> bool:
    """Note why a revision has not got ready, the first time; False where that is known, or it has been ready."""
    this = (revisions.c.deployment_id == deployment_id) & (revisions.c.id == revision_id)
    fresh = revisions.c.ready_at.is_(None) & revisions.c.failure.is_(None)
    values = {"failure": msgspec.json.encode(failure).decode()}
    if conn.execute(revisions.update().where(this, fresh).values(**values)).rowcount == 0:
        return False
    announce(conn, DEPLOYMENTS)
    return True


def _revision(row: dict[str, Any]) -> Revision:
    return Revision(**{**row, "config": decode_config(row["config"]), "failure": _failure(row["failure"])})


def _event(row: dict[str, Any]) -> RevisionEvent:
    del row["deployment_id"]
    return RevisionEvent(**{**row, "failure": _failure(row["failure"])})


def _failure(text: str | None) -> RevisionFailure | None:
    return None if text is None else _FAILURE.decode(text)
