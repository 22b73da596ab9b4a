"""Looks at the paths of a version before it is sealed, which takes too long to be done in the writer.

Place in the flow: a look is begun, reads the names from outside of the writer, and is noted where nothing has changed
meanwhile; then whatever seals the version finds it. Who stores or removes a file takes it back. Beginning a look holds
the volume's row for writing, and changing a file holds it for reading: on whichever server the two meet, either the
look sees the change or the change sees the look.
"""

from sqlalchemy import ColumnElement, Connection, and_, select

from machineshop.models import Volume
from machineshop.states import VolumeState
from machineshop.store import volume_files
from machineshop.store.tables import files, volume_versions, volumes

# In which a version's files may still change.
_UNSETTLED = (VolumeState.OPEN, VolumeState.SYNCING)


class Unchecked(Exception):
    """Nobody has looked at the paths of a version since they changed."""

    def __init__(self, volume: Volume, number: int) -> None:
        super().__init__(f"version {number} of the volume '{volume.name}' is to be looked at before it is sealed")
        self.volume = volume
        self.number = number


def begin(conn: Connection, volume_id: str, number: int, check_id: str) -> str | None:
    """Begin a look at a version's paths; returns its id, which is that of one that is under way where there is one.

    None: there is nothing to look for, since the version is settled or gone, or was looked at already.
    """
    conn.execute(select(volumes.c.id).where(volumes.c.id == volume_id).with_for_update())
    row = conn.execute(select(volume_versions).where(_is(volume_id, number))).mappings().first()
    if row is None or row["state"] not in _UNSETTLED or row["paths_trouble"] is not None:
        return None
    if row["check_id"] is not None:
        return str(row["check_id"])
    conn.execute(volume_versions.update().where(_is(volume_id, number)).values(check_id=check_id))
    return check_id


def names(conn: Connection, volume_id: str, number: int, after: str, limit: int) -> list[str]:
    """The names of a version's files, `limit` at most, from the one after `after` on."""
    query = select(files.c.name).where(volume_files.in_version(volume_id, number), files.c.name > after)
    return list(conn.execute(query.order_by(files.c.name).limit(limit)).scalars())


def note(conn: Connection, volume_id: str, number: int, check_id: str, trouble: str) -> None:
    """Note what a look has found, where no file has come or gone since it was begun; empty: nothing."""
    unchanged = and_(_is(volume_id, number), volume_versions.c.check_id == check_id)
    conn.execute(volume_versions.update().where(unchanged).values(paths_trouble=trouble))


def trouble_of(conn: Connection, volume: Volume, number: int) -> str:
    """Why the files of a version are none that a folder could be made of; empty: they are. The volume's row is held.

    Raises:
        Unchecked: Nobody has looked.
    """
    found: str | None = conn.execute(select(volume_versions.c.paths_trouble).where(_is(volume.id, number))).scalar()
    if found is None:
        raise Unchecked(volume, number)
    return found


def _is(volume_id: str, number: int) -> ColumnElement[bool]:
    return and_(volume_versions.c.volume_id == volume_id, volume_versions.c.number == number)
