"""Which files belong to which version of a volume, and whether they may still change.

A file's name says it: `<volume>/<version>/<path>`. What is uploaded for the version after the current one waits under
that number until the version is made. Who stores or removes such a file holds the volume's row for reading, and who
seals a version holds it for writing: on whichever server the two meet, one of them is first.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, exists, func, select, update

from machineshop.errors import InvalidRequest, NotFound, VolumeSealed
from machineshop.models import Contents, StoredFile, Volume
from machineshop.states import VolumeState
from machineshop.store.statement import Statement
from machineshop.store.tables import files, volume_versions, volumes

_PLACE = re.compile(r"([^/]+)/(0|[1-9][0-9]{0,8})/.")
_WHYS = {
    VolumeState.PENDING: "they are copied from elsewhere",
    VolumeState.SYNCING: "they are copied from elsewhere",
    VolumeState.READY: "it is sealed: a newer version, a deployment or a prewarm has settled it",
    VolumeState.FAILED: "it has failed",
}
_SETTLED = (VolumeState.READY, VolumeState.FAILED)
FILE_COLUMNS = [files.c[name] for name in StoredFile.__struct_fields__]


class Place(NamedTuple):
    """A version of a volume that a file belongs to; it may be the next one, which is not made yet."""

    volume_id: str
    volume_name: str
    number: int
    state: VolumeState
    """Open, where it is not made yet."""
    is_checked: bool = False
    """Whether somebody has looked at its paths, or is about to (`volume_checks`)."""


def place_of(conn: Connection, project_id: str, name: str) -> Place | None:
    """Where a name belongs; None: to no volume. It stays so until the end of the transaction."""
    match = _PLACE.match(name)
    if match is None:
        return None
    volume_name, number = match[1], int(match[2])
    query = select(volumes.c.id, volumes.c.current_version).where(
        volumes.c.project_id == project_id, volumes.c.name == volume_name
    )
    volume = conn.execute(query.with_for_update(read=True)).first()
    if volume is None or number > volume.current_version + 1:
        return None
    if number == volume.current_version + 1:
        return Place(volume.id, volume_name, number, VolumeState.OPEN)
    query = select(volume_versions.c.state, volume_versions.c.check_id).where(
        volume_versions.c.volume_id == volume.id, volume_versions.c.number == number
    )
    version = conn.execute(query).one()
    return Place(volume.id, volume_name, number, VolumeState(version.state), version.check_id is not None)


def open_place(conn: Connection, project_id: str, volume_name: str, number: int) -> Place:
    """The version of a volume that files are to be put into; it stays open until the end of the transaction.

    Raises:
        VolumeSealed: The version's files are settled.
        NotFound: There is no such volume any more.
        InvalidRequest: There is no such version, nor is it the next one.
    """
    place = place_of(conn, project_id, f"{prefix_of(volume_name, number)}-")
    if place is None:
        mine = (volumes.c.project_id == project_id) & (volumes.c.name == volume_name)
        if not conn.execute(select(exists().where(mine))).scalar_one():
            raise NotFound(what="volume", id=volume_name)
        raise InvalidRequest(
            f"{number} is no version of the volume '{volume_name}' that could be filled: it is its current one, or the "
            "one after that.",
            param="version",
        )
    begin_change(conn, place)
    return place


def begin_change(conn: Connection, place: Place, *, is_copied: bool = False) -> None:
    """Refuse to change the files of a version that has its final ones; what is known of its paths is so no more.

    Raises:
        VolumeSealed: It has, or somebody else fills it.
    """
    if place.state is not (VolumeState.SYNCING if is_copied else VolumeState.OPEN):
        raise VolumeSealed(name=place.volume_name, version=place.number, why=_WHYS.get(place.state, "it is open"))
    if place.is_checked:
        forget_check(conn, place.volume_id, place.number)


def forget_check(conn: Connection, volume_id: str, number: int) -> None:
    """Take back the look at a version's paths: a file comes or goes."""
    version = and_(volume_versions.c.volume_id == volume_id, volume_versions.c.number == number)
    conn.execute(update(volume_versions).where(version).values(check_id=None, paths_trouble=None))


def prefix_of(volume_name: str, number: int) -> str:
    """What the names of a version's files begin with."""
    return f"{volume_name}/{number}/"


def path_of(file: StoredFile) -> str:
    """A file's path within its version."""
    return file.name.split("/", 2)[2]


def in_version(volume_id: str, number: int) -> ColumnElement[bool]:
    """The files of a version."""
    return and_(files.c.volume_id == volume_id, files.c.volume_version == number)


def loose(conn: Connection, project_id: str, volume_name: str, number: int, after: str, limit: int) -> list[str]:
    """Names of files that were stored for a version before it was made, `limit` at most, from the one after `after` on.

    All files of the project are looked at, so it is for readers.
    """
    prefix = prefix_of(volume_name, number)
    is_loose = and_(
        files.c.project_id == project_id,
        files.c.name > after,
        func.substr(files.c.name, 1, len(prefix)) == prefix,
        files.c.volume_id.is_(None),
    )
    return list(conn.execute(select(files.c.name).where(is_loose).order_by(files.c.name).limit(limit)).scalars())


def adopt(conn: Connection, volume: Volume, number: int, names: Sequence[str]) -> bool:
    """Make files that were stored for a version before it was made the version's; False where it takes no files now."""
    place = place_of(conn, volume.project_id, f"{prefix_of(volume.name, number)}-")
    if place is None or place.volume_id != volume.id or place.state in _SETTLED:
        return False
    if place.is_checked:
        forget_check(conn, volume.id, number)
    if names:
        values = {"project_id": volume.project_id, "volume_id": volume.id, "volume_version": number}
        _ADOPT.run_each(conn, [{**values, "name": name} for name in names])
    return True


def remove_uploaded(conn: Connection, volume_id: str, number: int, limit: int) -> list[str]:
    """Remove files that were uploaded for a version which is copied instead; returns the keys of their blobs."""
    return remove_some(conn, and_(in_version(volume_id, number), files.c.origin_tag.is_(None)), limit)


def list_files(conn: Connection, volume_id: str, number: int, after: str, limit: int) -> list[StoredFile]:
    """A version's files by name, `limit` at most, from the one after `after` on."""
    query = select(*FILE_COLUMNS).where(in_version(volume_id, number), files.c.name > after)
    rows = conn.execute(query.order_by(files.c.name).limit(limit)).mappings()
    return [StoredFile(**row) for row in rows]


def with_blobs(conn: Connection, project_id: str, volume_id: str, number: int) -> list[tuple[StoredFile, str]]:
    """A version's files with the keys of their blobs, by name."""
    query = select(*FILE_COLUMNS, files.c.blob_key).where(in_version(volume_id, number))
    rows = conn.execute(query.where(files.c.project_id == project_id).order_by(files.c.name)).mappings()
    return [_with_key(row) for row in rows]


def some_with_blobs(
    conn: Connection, volume: Volume, number: int, paths: Sequence[str]
) -> list[tuple[StoredFile, str]]:
    """Those of these files that a version has, in no order, with the keys of their blobs."""
    prefix = prefix_of(volume.name, number)
    query = select(*FILE_COLUMNS, files.c.blob_key).where(
        files.c.project_id == volume.project_id,
        files.c.name.in_([prefix + path for path in paths]),
        in_version(volume.id, number),
    )
    return [_with_key(row) for row in conn.execute(query).mappings()]


def contents(conn: Connection, volume_id: str, number: int) -> Contents:
    """How much a version has."""
    query = select(func.count(), func.coalesce(func.sum(files.c.size), 0)).where(in_version(volume_id, number))
    count, size = conn.execute(query).one()
    return Contents(count=count, size=int(size))


def has_files(conn: Connection, volume_id: str, number: int) -> bool:
    """Whether a version has any."""
    return bool(conn.execute(select(exists().where(in_version(volume_id, number)))).scalar_one())


def remove_some(conn: Connection, condition: ColumnElement[bool], limit: int) -> list[str]:
    """Remove some of a volume's files, `limit` at most; returns the keys of their blobs, which others may have too."""
    # In the order in which whoever stores several files of such names holds them, or each could wait for the other.
    query = select(files.c.project_id, files.c.name, files.c.blob_key).where(condition)
    query = query.order_by(files.c.volume_version, files.c.name).limit(limit).with_for_update()
    rows = conn.execute(query).all()
    if rows:
        _REMOVE.run_each(conn, [{"project_id": row.project_id, "name": row.name} for row in rows])
    return [row.blob_key for row in rows]


def remove_named(conn: Connection, volume_id: str, number: int, names: Sequence[str]) -> list[str]:
    """Remove some hundred files of a version that is being copied; returns the keys of their blobs."""
    forget_check(conn, volume_id, number)
    named = and_(in_version(volume_id, number), files.c.name.in_(names))
    return list(conn.execute(delete(files).where(named).returning(files.c.blob_key)).scalars())


def unhashed(conn: Connection, now: float, limit: int) -> list[tuple[StoredFile, str]]:
    """Files of any volume whose digest is not known, the oldest first, with the keys of their blobs.

    Those whose bytes were not in the storage come last, when it is time for them.
    """
    query = select(*FILE_COLUMNS, files.c.blob_key).where(files.c.volume_id.is_not(None), files.c.digest.is_(None))
    untried = query.where(files.c.hash_again_at.is_(None)).order_by(files.c.created_at)
    again = query.where(files.c.hash_again_at <= now).order_by(files.c.hash_again_at)
    rows = list(conn.execute(untried.limit(limit)).mappings())
    rows += conn.execute(again.limit(limit - len(rows))).mappings()
    return [_with_key(row) for row in rows]


def note_digest(conn: Connection, blob_key: str, digest: str) -> None:
    """Note the digest of a blob's bytes, which never change."""
    unknown = and_(files.c.blob_key == blob_key, files.c.digest.is_(None))
    conn.execute(update(files).where(unknown).values(digest=digest, hash_again_at=None))


def note_missing(conn: Connection, blob_key: str, again_at: float) -> bool:
    """Note that the bytes of a blob are not in the storage; False where no file without a digest has it any more."""
    unknown = and_(files.c.blob_key == blob_key, files.c.digest.is_(None))
    return conn.execute(update(files).where(unknown).values(hash_again_at=again_at)).rowcount > 0


def without_bytes(conn: Connection, project_id: str) -> dict[tuple[str, int], tuple[str, int]]:
    """Where the bytes of files were not in the storage: by volume and version the first one's name, and how many."""
    mine = and_(files.c.project_id == project_id, files.c.hash_again_at.is_not(None), files.c.volume_id.is_not(None))
    version = (files.c.volume_id, files.c.volume_version)
    query = select(*version, func.min(files.c.name), func.count()).where(mine).group_by(*version)
    return {(volume_id, number): (name, count) for volume_id, number, name, count in conn.execute(query)}


def with_digests(conn: Connection, volume_id: str, digests: Iterable[str]) -> dict[str, Any]:
    """For each of these digests that a file of the volume has, one such file's row; it stays so long as it is used."""
    # The rows alone that are needed: very many may have the same bytes.
    wanted = (files.c.volume_id == volume_id) & files.c.digest.in_(sorted(set(digests)))
    names = select(func.min(files.c.name)).where(wanted).group_by(files.c.digest)
    query = select(files).where(files.c.volume_id == volume_id, files.c.name.in_(names))
    # Held for reading: whoever removes the row in the meantime waits, and so does the removal of its blob.
    return {row["digest"]: row for row in conn.execute(query.with_for_update(read=True)).mappings()}


def named(conn: Connection, project_id: str, names: Sequence[str]) -> dict[str, Any]:
    """The rows of those of these files that there are, by name; nobody changes them until the transaction ends."""
    query = select(files).where(files.c.project_id == project_id, files.c.name.in_(names)).order_by(files.c.name)
    return {row["name"]: row for row in conn.execute(query.with_for_update()).mappings()}


def _with_key(row: RowMapping) -> tuple[StoredFile, str]:
    return StoredFile(**{column.name: row[column.name] for column in FILE_COLUMNS}), row["blob_key"]


# One by one, by the key: databases that know too little of a table may go through all of it for a list of names.
_ONE = "WHERE project_id = :project_id AND name = :name"
_REMOVE = Statement(f"DELETE FROM files {_ONE}")
# The ETag of what came in one piece is its digest.
_ADOPT = Statement(
    "UPDATE files SET volume_id = :volume_id, volume_version = :volume_version, job_id = NULL, "
    f"digest = CASE WHEN replace(etag, '-', '') = etag THEN etag END {_ONE} AND volume_id IS NULL"
)
