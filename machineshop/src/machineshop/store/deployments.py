"""Deployments, their revisions, and the events that made a revision the active one."""

from typing import Any

import msgspec
from sqlalchemy import Connection, and_, func, or_, select
from sqlalchemy.exc import IntegrityError

from machineshop.errors import AlreadyExists, ChangedMeanwhile, NotFound
from machineshop.models import Deployment, DeploymentConfig, Revision, RevisionEvent
from machineshop.store import queues, withdrawals
from machineshop.store.announcements import announce
from machineshop.store.tables import deployments, revision_events, revisions

# Announced when one was created, changed or deleted.
DEPLOYMENTS = "deployments"
_LIVE = deployments.c.deleted_at.is_(None)


def insert(conn: Connection, deployment: Deployment) -> None:
    """Add a deployment with its first revision.

    Raises:
        AlreadyExists: The project has a deployment of this name.
    """
    try:
        conn.execute(deployments.insert().values(**_row(deployment)))
    except IntegrityError as error:
        raise AlreadyExists(what="deployment", name=deployment.name) from error
    queues.create(conn, deployment.id)
    _activate(conn, deployment, "create")
    announce(conn, DEPLOYMENTS)


def get(conn: Connection, project_id: str, name_or_id: str, *, deleted: bool = False) -> Deployment | None:
    """A deployment by its name or id; with `deleted`, also one that is on its way out, by id."""
    named = and_(_LIVE, or_(deployments.c.name == name_or_id, deployments.c.id == name_or_id))
    condition = deployments.c.id == name_or_id if deleted else named
    query = select(deployments).where(deployments.c.project_id == project_id, condition)
    row = conn.execute(query).mappings().first()
    return None if row is None else _deployment(row)


def list_live(conn: Connection, project_id: str) -> list[Deployment]:
    """A project's deployments, by name."""
    query = select(deployments).where(deployments.c.project_id == project_id, _LIVE).order_by(deployments.c.name)
    return [_deployment(row) for row in conn.execute(query).mappings()]


def list_of_all_projects(conn: Connection) -> list[Deployment]:
    """Every live deployment, for the control loop."""
    return [_deployment(row) for row in conn.execute(select(deployments).where(_LIVE)).mappings()]


def update(conn: Connection, deployment: Deployment, old: Deployment, action: str | None) -> None:
    """Put a changed deployment in the place of `old`; with `action`, its revision is new and becomes the active one.

    Raises:
        ChangedMeanwhile: It was changed or deleted since it was read.
    """
    same = and_(deployments.c.config == _encode(old.config), deployments.c.revision_id == old.revision_id)
    guard = and_(deployments.c.id == deployment.id, same, _LIVE)
    if conn.execute(deployments.update().where(guard).values(**_row(deployment))).rowcount == 0:
        raise ChangedMeanwhile(what="deployment", name=deployment.name)
    if action is not None:
        _activate(conn, deployment, action)
    announce(conn, DEPLOYMENTS)


def delete(conn: Connection, project_id: str, deployment_id: str, now: float) -> None:
    """Take a deployment away: no job comes in or begins any more; its replicas still have to drain.

    Raises:
        NotFound: It is deleted already.
    """
    guard = and_(deployments.c.project_id == project_id, deployments.c.id == deployment_id, _LIVE)
    if conn.execute(deployments.update().where(guard).values(deleted_at=now)).rowcount == 0:
        raise NotFound(what="deployment", id=deployment_id)
    announce(conn, DEPLOYMENTS)
    while withdrawals.clear(conn, deployment_id, None, now):
        pass


def list_events(conn: Connection, deployment_id: str, limit: int, before: int | None) -> list[RevisionEvent]:
    """What became active when, the newest first."""
    query = (
        select(revision_events, revisions.c.number.label("revision_number"), revisions.c.config)
        .join(revisions, revisions.c.id == revision_events.c.revision_id)
        .where(revision_events.c.deployment_id == deployment_id)
        .order_by(revision_events.c.number.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(revision_events.c.number < before)
    return [_event(row) for row in conn.execute(query).mappings()]


def get_revision(conn: Connection, deployment_id: str, number_or_id: str) -> Revision | None:
    """A revision by its number or id."""
    condition = revisions.c.id == number_or_id
    if number_or_id.isdecimal() and len(number_or_id) < 10:
        condition = revisions.c.number == int(number_or_id)
    query = select(revisions).where(revisions.c.deployment_id == deployment_id, condition)
    row = conn.execute(query).mappings().first()
    return None if row is None else Revision(**{**row, "config": _decode(row["config"])})


def _activate(conn: Connection, deployment: Deployment, action: str) -> None:
    conn.execute(
        revisions.insert().values(
            id=deployment.revision_id,
            deployment_id=deployment.id,
            number=deployment.revision_number,
            config=_encode(deployment.config),
            created_at=deployment.updated_at,
        )
    )
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
            action=action,
            activated_at=deployment.updated_at,
        )
    )


def _row(deployment: Deployment) -> dict[str, Any]:
    return {**msgspec.structs.asdict(deployment), "name": deployment.name, "config": _encode(deployment.config)}


def _deployment(row: Any) -> Deployment:
    fields = {**row, "config": _decode(row["config"])}
    del fields["name"]
    return Deployment(**fields)


def _event(row: Any) -> RevisionEvent:
    return RevisionEvent(
        number=row["number"],
        revision_number=row["revision_number"],
        revision_id=row["revision_id"],
        action=row["action"],
        activated_at=row["activated_at"],
        image=_decode(row["config"]).image,
    )


def _encode(config: DeploymentConfig) -> str:
    return msgspec.json.encode(config).decode()


def _decode(text: str) -> DeploymentConfig:
    return msgspec.json.decode(text, type=DeploymentConfig)
