"""Renaming and deleting projects.

A project goes in two steps. One transaction makes it invisible: its keys end, its slug is free, its secrets are gone,
and the record says so. Then a loop takes away in pieces what it had; cut off anywhere, it goes on where it was.
"""

import time
from collections.abc import Callable

from sqlalchemy import Connection

from machineshop.errors import Conflict, NotFound
from machineshop.models import DEFAULT_SLUG, Actor, Project
from machineshop.services import keys
from machineshop.services.audit import AT_THE_SERVER, make_event
from machineshop.services.identity import LOCK
from machineshop.store import audit
from machineshop.store import projects as store
from machineshop.store.database import Database

# Rows of a kind that one transaction takes away: others wait for it.
BATCH = 200
_NAMED = 5


class ProjectStays(Conflict):
    """{message}"""

    def __init__(self, message: str) -> None:
        super().__init__(message=message)


class ProjectService:
    """What becomes of projects.

    Args:
        database: The store.
        ended: Called when keys have ended, so that none of them is remembered as good.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, database: Database, ended: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._ended = ended
        self._clock = clock

    async def rename(
        self, name_or_id: str, name: str, *, by: Actor = AT_THE_SERVER, organization_id: str | None = None
    ) -> Project:
        """Give a project another name for people; its slug stays, since URLs and commands hold it.

        Args:
            name_or_id: Its slug or id.
            name: The new name.
            by: Who does.
            organization_id: It must be of this one.

        Raises:
            InvalidRequest: The name cannot be one.
            NotFound: There is no such project.
        """
        keys.check_name(name)
        return await self._database.write(_rename, name_or_id, name, by, organization_id, self._clock())

    async def delete(
        self,
        name_or_id: str,
        *,
        by: Actor = AT_THE_SERVER,
        organization_id: str | None = None,
        own_id: str | None = None,
    ) -> Project:
        """Delete a project with all that it has; a running server takes that away within minutes.

        Args:
            name_or_id: Its slug or id.
            by: Who does.
            organization_id: It must be of this one.
            own_id: The project of the key that asks, which would end in the middle of its request.

        Raises:
            NotFound: There is no such project.
            ProjectStays: It has deployments, or is one that cannot go.
        """
        gone = await self._database.write_alone(LOCK, _delete, name_or_id, by, organization_id, own_id, self._clock())
        self._ended()
        return gone

    async def purge(self, _now: float) -> int:
        """Take away what deleted projects still have; returns how many rows."""
        count = 0
        while taken := await self._database.write_alone(LOCK, store.purge, BATCH):
            count += taken
        return count


def _rename(
    conn: Connection, name_or_id: str, name: str, by: Actor, organization_id: str | None, now: float
) -> Project:
    old = _found(conn, name_or_id, organization_id)
    store.rename(conn, old.id, name)
    event = make_event(
        by, old.organization_id, old.id, "project.rename", old.slug, now, {"name": old.name}, {"name": name}
    )
    audit.insert(conn, event)
    return Project(old.id, old.organization_id, name, old.slug)


def _delete(
    conn: Connection, name_or_id: str, by: Actor, organization_id: str | None, own_id: str | None, now: float
) -> Project:
    project = _found(conn, name_or_id, organization_id)
    if project.slug == DEFAULT_SLUG:
        raise ProjectStays(f"The project '{DEFAULT_SLUG}' is that of the server's own admin key, and stays.")
    if project.id == own_id:
        raise ProjectStays(
            f"The key that asks belongs to the project '{project.slug}' itself: use one of another project of the "
            "organization, or 'machineshop projects delete' on the server's machine."
        )
    if names := store.names_of_live_deployments(conn, project.id):
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ProjectStays(
            f"The project '{project.slug}' has deployments: {', '.join(names[:_NAMED])}{more}. Delete them first."
        )
    store.remove(conn, project, now)
    values = {"name": project.name, "id": project.id}
    event = make_event(by, project.organization_id, project.id, "project.delete", project.slug, now, values)
    audit.insert(conn, event)
    return project


def _found(conn: Connection, name_or_id: str, organization_id: str | None) -> Project:
    project = store.find(conn, name_or_id, organization_id)
    if project is None:
        raise NotFound(what="project", id=name_or_id[:255], where="")
    return project
