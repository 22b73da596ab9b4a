"""The record of changes: rows that are added and, when they are old, removed, and never changed."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select

from machineshop.models import Actor, AuditEvent
from machineshop.store.tables import audit_events

_CHANGE = msgspec.json.Decoder()


def insert(conn: Connection, event: AuditEvent) -> None:
    """Add an event."""
    conn.execute(
        audit_events.insert().values(
            id=event.id,
            at=event.at,
            organization_id=event.organization_id,
            project_id=event.project_id,
            actor_name=event.actor.name,
            actor_key_id=event.actor.key_id,
            address=event.actor.address,
            action=event.action,
            subject=event.subject,
            before=_json(event.before),
            after=_json(event.after),
        )
    )


def list_events(
    conn: Connection, organization_id: str, limit: int, before: str | None = None, action: str | None = None
) -> list[AuditEvent]:
    """An organization's events, the newest first.

    Arguments:
        conn: The connection.
        organization_id: Whose.
        limit: How many at most.
        before: Only those before the event with this id.
        action: Only those of this action, or of this kind of thing.
    """
    query = select(audit_events).where(audit_events.c.organization_id == organization_id)
    if before is not None:
        query = query.where(audit_events.c.id < before)
    if action is not None:
        query = query.where(
            (audit_events.c.action == action) | audit_events.c.action.startswith(f"{action}.", autoescape=True)
        )
    return [_event(row) for row in conn.execute(query.order_by(audit_events.c.id.desc()).limit(limit))]


def delete_older(conn: Connection, at: float, limit: int) -> int:
    """Remove the events before a time, so many at most; returns how many there were."""
    old = select(audit_events.c.id).where(audit_events.c.at < at).order_by(audit_events.c.at).limit(limit)
    return conn.execute(delete(audit_events).where(audit_events.c.id.in_(old))).rowcount


def _json(values: dict[str, Any] | None) -> str | None:
    return None if values is None else msgspec.json.encode(values).decode()


def _event(row: Row[Any]) -> AuditEvent:
    return AuditEvent(
        id=row.id,
        at=row.at,
        organization_id=row.organization_id,
        project_id=row.project_id,
        actor=Actor(name=row.actor_name, key_id=row.actor_key_id, address=row.address),
        action=row.action,
        subject=row.subject,
        before=None if row.before is None else _CHANGE.decode(row.before),
        after=None if row.after is None else _CHANGE.decode(row.after),
    )
