"""Deployments: what should run, and how many of it."""

from typing import Any

import msgspec
from sqlalchemy import Connection, and_, select
from sqlalchemy.exc import IntegrityError

from machineshop.errors import AlreadyExists, ChangedMeanwhile, NotFound
from machineshop.models import Deployment, RevisionFailure
from machineshop.store import projects, queues, revisions, volumes, withdrawals
from machineshop.store.announcements import announce
from machineshop.store.deployment_rows import DEPLOYMENTS, decode_config, encode_config
from machineshop.store.naming import named
from machineshop.store.tables import deployments

_LIVE = deployments.c.deleted_at.is_(None)


def insert(conn: Connection, deployment: Deployment) -> None:
    """Add a deployment with its first revision.

    Raises:
        AlreadyExists: The project has a deployment of this name.
        VolumeUnusable: A volume that it mounts is gone, or not ready.
        Unchecked: Nobody has looked at the paths of a version that it mounts and that is still open.
        NotFound: Its project is gone.
    """
    projects.hold(conn, deployment.project_id)
    volumes.mount(conn, deployment.project_id, deployment.config.volumes, deployment.created_at)
    try:
        conn.execute(deployments.insert().values(**_row(deployment)))
    except IntegrityError as error:
        raise AlreadyExists(what="deployment", name=deployment.name) from error
    queues.create(conn, deployment.id)
    revisions.add(conn, deployment)
    revisions.activate(conn, deployment, "create")
    announce(conn, DEPLOYMENTS)


def get(conn: Connection, project_id: str, name_or_id: str, *, deleted: bool = False) -> Deployment | None:
    """A deployment by its name or id; with `deleted`, also one that is on its way out, by id."""
    query = select(deployments).where(deployments.c.project_id == project_id)
    if deleted:
        query = query.where(deployments.c.id == name_or_id)
    else:
        query = named(query.where(_LIVE), deployments.c.name, deployments.c.id, name_or_id)
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
    """Put a changed deployment in the place of `old`; with `action`, its revision becomes the active one.

    Raises:
        ChangedMeanwhile: It was changed or deleted since it was read.
        VolumeUnusable: A volume that it mounts is gone, or not ready.
        Unchecked: Nobody has looked at the paths of a version that it mounts and that is still open.
    """
    # Compared as values: what an earlier version has written down may lack fields that this one knows.
    query = select(deployments).where(deployments.c.id == old.id, _LIVE).with_for_update()
    row = conn.execute(query).mappings().first()
    found = None if row is None else _deployment(row)
    if found is None or (found.config, found.revision_id) != (old.config, old.revision_id):
        raise ChangedMeanwhile(what="deployment", name=deployment.name)
    if deployment.config.volumes != old.config.volumes:
        volumes.mount(conn, deployment.project_id, deployment.config.volumes, deployment.updated_at)
    values = _row(deployment)
    del values["desired_replicas"]  # the autoscaler's own
    conn.execute(deployments.update().where(deployments.c.id == deployment.id).values(**values))
    if action is not None:
        if revisions.get(conn, deployment.id, deployment.revision_id) is None:
            revisions.add(conn, deployment)
        revisions.activate(conn, deployment, action)
    announce(conn, DEPLOYMENTS)


def give_up(conn: Connection, back: Deployment, old: Deployment, failure: RevisionFailure) -> bool:
    """Note why the revision of `old` has not got ready, and put `back`, with an earlier one, in its place.

    Returns False, with nothing changed, where a failure is noted already, or the revision has been ready.

    Raises:
        ChangedMeanwhile, VolumeUnusable, Unchecked: As for `update`.
    """
    rolled_back = msgspec.structs.replace(failure, rolled_back=True)
    if not revisions.note_failure(conn, old.id, old.revision_id, rolled_back):
        return False
    update(conn, back, old, "system")
    return True


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


def _row(deployment: Deployment) -> dict[str, Any]:
    return {**msgspec.structs.asdict(deployment), "name": deployment.name, "config": encode_config(deployment.config)}


def _deployment(row: Any) -> Deployment:
    fields = {**row, "config": decode_config(row["config"])}
    del fields["name"]
    return Deployment(**fields)
