"""The record of who changed what: written before a change is acknowledged, read by admins, kept for a set time.

What jobs do (submits, results, files of jobs) is no change in this sense: the queue itself tells of it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from machineshop.config import DEFAULT_AUDIT_DAYS
from machineshop.errors import InvalidRequest
from machineshop.ids import is_id, new_id
from machineshop.models import Actor, AuditEvent, DeploymentConfig, Identity
from machineshop.store import audit as store
from machineshop.store.database import Database

log = logging.getLogger(__name__)

MAX_EVENTS = 1000
REMOVED_AT_ONCE = 1000
# Of a configuration with a thousand variables the record keeps that it was changed, not how.
MAX_VALUES_BYTES = 16 * 1024
MAX_SUBJECT_LENGTH = 512
HIDDEN = "***"
# Whoever works on the server's own machine.
AT_THE_SERVER = Actor(name="machineshop command", address="the server's machine")

Values = dict[str, Any]


class AuditLog:
    """The record, for all organizations.

    Args:
        database: The store.
        keep_seconds: How long events are kept.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        keep_seconds: float = DEFAULT_AUDIT_DAYS * 86400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._keep_seconds = keep_seconds
        self._clock = clock

    async def record(
        self,
        identity: Identity,
        address: str,
        action: str,
        subject: str,
        before: Values | None = None,
        after: Values | None = None,
    ) -> None:
        """Write an event; it is on disk when this returns.

        Args:
            identity: Who made the change.
            address: From where.
            action: What was done, as `deployment.update`.
            subject: To what, by its name or id.
            before: What it was, without secrets; where `after` is given too, only what differs is kept.
            after: What it is.
        """
        actor = Actor(name=identity.key.name, key_id=identity.key.id, address=address)
        event = make_event(
            actor, identity.organization.id, identity.project.id, action, subject, self._clock(), before, after
        )
        await self._database.write(store.insert, event)
        log.info("audit action=%s subject=%s key_id=%s address=%s", action, subject, identity.key.id, address)

    async def list_events(
        self, organization_id: str, limit: int, before: str | None = None, action: str | None = None
    ) -> list[AuditEvent]:
        """An organization's events, the newest first.

        Args:
            organization_id: Whose.
            limit: How many, `MAX_EVENTS` at most.
            before: Only those before the event with this id.
            action: Only those of an action (`deployment.update`), or of a kind of thing (`deployment`).

        Raises:
            InvalidRequest: `limit` is out of range, or `before` is no event's id.
        """
        if not 1 <= limit <= MAX_EVENTS:
            raise InvalidRequest(f"'limit' is {limit}; it must be between 1 and {MAX_EVENTS}.", param="limit")
        if before is not None and not is_id(before):
            raise InvalidRequest(f"'before' is '{before[:64]}', which is no event's id.", param="before")
        return await self._database.read(store.list_events, organization_id, limit, before, action)

    async def clean(self, now: float) -> int:
        """Remove what is older than is kept; returns how many events there were."""
        removed = 0
        while some := await self._database.write(store.delete_older, now - self._keep_seconds, REMOVED_AT_ONCE):
            removed += some
            if some < REMOVED_AT_ONCE:
                break
        return removed


def make_event(
    actor: Actor,
    organization_id: str,
    project_id: str,
    action: str,
    subject: str,
    now: float,
    before: Values | None = None,
    after: Values | None = None,
) -> AuditEvent:
    """An event, with no more of the values than differs and is safe to keep."""
    if before is not None and after is not None:
        before, after = difference(before, after)
    return AuditEvent(
        id=new_id(),
        at=now,
        organization_id=organization_id,
        project_id=project_id,
        actor=actor,
        action=action,
        subject=subject[:MAX_SUBJECT_LENGTH],
        before=_kept(before),
        after=_kept(after),
    )


def config_values(config: DeploymentConfig) -> Values:
    """A deployment's configuration for the record: its variables by name."""
    values: Values = msgspec.to_builtins(config)
    values["environment_variables"] = {
        variable.name: f"secret {variable.value_from_secret}" if variable.value_from_secret else Hidden(variable.value)
        for variable in config.environment_variables
    }
    return values


class Hidden:
    """A value that may be a secret: it is compared, and never kept."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return HIDDEN


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Values, Values]:
    """What differs, on either side."""
    old: Values = {}
    new: Values = {}
    for name in {**before, **after}:
        one, other = before.get(name), after.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            one, other = difference(one, other)
            if not one and not other:
                continue
        elif one == other and (name in before) == (name in after):
            continue
        if name in before:
            old[name] = one
        if name in after:
            new[name] = other
    return old, new


def _kept(values: Values | None) -> Values | None:
    if values is None:
        return None
    shown: Values = msgspec.to_builtins(values, enc_hook=_shown)
    if len(msgspec.json.encode(shown)) > MAX_VALUES_BYTES:
        return {"too_large": sorted(shown)[:100]}
    return shown


def _shown(value: object) -> object:
    if isinstance(value, Hidden):
        return HIDDEN
    raise NotImplementedError
