"""Takes volumes away: from everybody's sight at once, and their files some at a time.

Place in the flow: `delete_volume` is one short transaction, after which nobody finds the volume, its versions or its
files, and its name is free. What says that there are files left to remove is a row of `gone_volumes`: whoever removes
them begins with what that names, also after a crash.
"""

from sqlalchemy import Connection, delete, select

from machineshop.errors import VolumeMounted
from machineshop.models import Volume
from machineshop.store import volume_files, volumes
from machineshop.store.announcements import announce
from machineshop.store.tables import files, gone_volumes, volume_versions
from machineshop.store.tables import volumes as volumes_table


def delete_volume(conn: Connection, project_id: str, name_or_id: str, now: float) -> Volume:
    """Take a volume away; its files are nobody's from now on.

    Raises:
        NotFound: The project has no such volume.
        VolumeMounted: A deployment mounts it.
    """
    volume = volumes.locked(conn, project_id, name_or_id)
    mounts = volumes.mounts_of(conn, project_id, now)
    users = {str(each): each for each in mounts if each.mount.volume_id == volume.id}
    if users:
        raise VolumeMounted(name=volume.name, deployments=", ".join(sorted(users)[:10]))
    conn.execute(gone_volumes.insert().values(id=volume.id, project_id=project_id))
    conn.execute(delete(volume_versions).where(volume_versions.c.volume_id == volume.id))
    conn.execute(delete(volumes_table).where(volumes_table.c.id == volume.id))
    announce(conn, volumes.VOLUMES_GONE)
    return volume


def remove_files(conn: Connection, limit: int) -> list[str] | None:
    """Remove some files of a volume that was taken away, `limit` at most.

    Returns the keys of their blobs, which others may have too; None: no such volume is left.
    """
    gone = conn.execute(select(gone_volumes).order_by(gone_volumes.c.id).limit(1)).first()
    if gone is None:
        return None
    keys = volume_files.remove_some(conn, files.c.volume_id == gone.id, limit)
    if len(keys) < limit:
        conn.execute(delete(gone_volumes).where(gone_volumes.c.id == gone.id))
    return keys
