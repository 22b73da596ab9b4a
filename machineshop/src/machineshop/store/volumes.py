"""Volumes and their versions; what their files are is said in `volume_files`."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select
from sqlalchemy.exc import IntegrityError

from machineshop.errors import AlreadyExists, InvalidRequest, NotFound, VolumeUnusable
from machineshop.models import Volume, VolumeMount, VolumeOrigin, VolumeVersion
from machineshop.states import VOLUME_MOVES, VolumeState
from machineshop.store import volume_checks, volume_files
from machineshop.store.announcements import announce
from machineshop.store.deployment_rows import decode_config
from machineshop.store.naming import named
from machineshop.store.revisions import may_serve
from machineshop.store.tables import deployments, revisions, volume_versions, volumes

# Announced when there is something for the loop that fills volumes to do.
VOLUMES = "volumes"
VOLUMES_GONE = "volumes-gone"
"""What is announced where versions are taken away: machines that have files of them may let go of these."""
# A list shows all of them, and what is shown of one says all of its versions.
MAX_VOLUMES = 1000
MAX_VERSIONS = 1000

_HAS_MOUNTS = '"volume_id":'
_UNTRIED = revisions.c.ready_at.is_(None).label("untried")
_FINAL = {state for state, moves in VOLUME_MOVES.items() if not moves}


def insert(conn: Connection, volume: Volume, version: VolumeVersion, early: Sequence[str]) -> None:
    """Add a volume with its first version, and with some of the files that were stored for it before.

    Arguments:
        conn: The connection.
        volume: The volume.
        version: The version.
        early: The names of these files. Whatever else there is of them is the caller's to adopt.

    Raises:
        AlreadyExists: The project has one of this name.
        InvalidRequest: The project has as many as it may.
    """
    of_project = select(func.count()).select_from(volumes).where(volumes.c.project_id == volume.project_id)
    if conn.execute(of_project).scalar_one() >= MAX_VOLUMES:
        raise InvalidRequest(f"This project has {MAX_VOLUMES} volumes, and no more may be: delete some.")
    try:
        conn.execute(volumes.insert().values(**msgspec.structs.asdict(volume)))
    except IntegrityError as error:
        raise AlreadyExists(what="volume", name=volume.name) from error
    _begin(conn, volume, version, early)


def get(conn: Connection, project_id: str, name_or_id: str) -> Volume | None:
    """A volume by its name or id."""
    row = conn.execute(_named(project_id, name_or_id)).mappings().first()
    return None if row is None else Volume(**row)


def locked(conn: Connection, project_id: str, name_or_id: str = "", *, id_: str = "") -> Volume:
    """A volume by its name or id; nobody else changes it until the end of the transaction.

    Raises:
        NotFound: The project has no such volume.
    """
    by_id = select(volumes).where(volumes.c.project_id == project_id, volumes.c.id == id_)
    query = by_id if id_ else _named(project_id, name_or_id)
    row = conn.execute(query.with_for_update()).mappings().first()
    if row is None:
        raise NotFound(what="volume", id=id_ or name_or_id)
    return Volume(**row)


def list_all(conn: Connection, project_id: str) -> list[Volume]:
    """A project's volumes, by name."""
    query = select(volumes).where(volumes.c.project_id == project_id).order_by(volumes.c.name)
    return [Volume(**row) for row in conn.execute(query).mappings()]


def versions(conn: Connection, volume_id: str) -> list[VolumeVersion]:
    """The versions of a volume, the first one first."""
    query = select(volume_versions).where(volume_versions.c.volume_id == volume_id)
    return [_version(row) for row in conn.execute(query.order_by(volume_versions.c.number)).mappings()]


def version(conn: Connection, volume_id: str, number: int) -> VolumeVersion | None:
    """One version of a volume."""
    row = conn.execute(select(volume_versions).where(_is(volume_id, number))).mappings().first()
    return None if row is None else _version(row)


def add_version(conn: Connection, project_id: str, added: VolumeVersion, early: Sequence[str], now: float) -> None:
    """Add the version after the current one, which is sealed by that where it was open.

    Arguments:
        conn: The connection.
        project_id: Whose volume.
        added: The version.
        early: As for `insert`.
        now: Seconds since the epoch.

    Raises:
        NotFound: The volume is gone.
        InvalidRequest: It is not the next version, or there are as many as there may be.
        Unchecked: Nobody has looked at the paths of the current one.
    """
    volume = locked(conn, project_id, id_=added.volume_id)
    if added.number != volume.current_version + 1:
        raise InvalidRequest(
            f"The next version of the volume '{volume.name}' is {volume.current_version + 1}, not {added.number}: "
            "another one was made at the same time.",
            param="content",
        )
    if added.number >= MAX_VERSIONS:
        raise InvalidRequest(
            f"The volume '{volume.name}' has {MAX_VERSIONS} versions, and no more may be: make a new volume.",
            param="content",
        )
    seal(conn, volume, volume.current_version, now)
    values = {"current_version": added.number, "updated_at": now}
    conn.execute(volumes.update().where(volumes.c.id == volume.id).values(**values))
    _begin(conn, volume, added, early)


def seal_current(conn: Connection, project_id: str, name_or_id: str, now: float) -> tuple[Volume, VolumeVersion]:
    """Seal the current version, where it is open and has files; returns what it is then.

    Raises:
        NotFound: The project has no such volume.
        Unchecked: Nobody has looked at its paths.
    """
    volume = locked(conn, project_id, name_or_id)
    if volume_files.has_files(conn, volume.id, volume.current_version):
        seal(conn, volume, volume.current_version, now)
    current = conn.execute(select(volume_versions).where(_is(volume.id, volume.current_version))).mappings().one()
    return volume, _version(current)


def seal(conn: Connection, volume: Volume, number: int, now: float) -> None:
    """Let the files of a version be what they are, where it is open; the volume's row is held.

    Files that no folder could be made of make it a failed one.

    Raises:
        Unchecked: Nobody has looked at its paths.
    """
    is_open = and_(_is(volume.id, number), volume_versions.c.state == str(VolumeState.OPEN))
    if conn.execute(select(volume_versions.c.number).where(is_open)).first() is None:
        return
    trouble = volume_checks.trouble_of(conn, volume, number)
    state = VolumeState.FAILED if trouble else VolumeState.READY
    conn.execute(volume_versions.update().where(is_open).values(state=str(state), message=trouble, sealed_at=now))


def mount(conn: Connection, project_id: str, mounts: Sequence[VolumeMount], now: float) -> None:
    """Seal what a deployment is about to mount, and keep it from being deleted until the end of the transaction.

    Raises:
        VolumeUnusable: One of them is gone, or not ready.
        Unchecked: Nobody has looked at the paths of one of them.
    """
    for each in sorted(mounts, key=lambda mounted: mounted.volume_id or ""):  # in one order, or two could wait in turn
        try:
            volume = locked(conn, project_id, id_=each.volume_id or "")
        except NotFound:
            raise VolumeUnusable(
                f"The volume '{each.name}' was deleted, and a new one of that name is not the same: go back to "
                "another revision, or deploy with a volume that there is (`jig volumes list`)."
            ) from None
        number = each.version or 0
        if volume_files.has_files(conn, volume.id, number):
            seal(conn, volume, number, now)
        found = version(conn, volume.id, number)
        if found is None or found.state is not VolumeState.READY:
            raise VolumeUnusable(_why_not(volume, number, found))


class Mounting(msgspec.Struct, frozen=True):
    """A version of a volume that a deployment mounts."""

    deployment_id: str
    deployment_name: str
    revision_number: int
    """Of the active revision."""
    mount: VolumeMount
    serving_number: int | None = None
    """Of the revision that mounts it where the active one does not: one whose replicas may serve meanwhile."""

    def __str__(self) -> str:
        if self.serving_number is None:
            return f"'{self.deployment_name}'"
        until = f"revision {self.serving_number} may serve until revision {self.revision_number} has been ready"
        return f"'{self.deployment_name}' ({until})"


def mounts_of(conn: Connection, project_id: str, now: float) -> list[Mounting]:
    """What the deployments of a project mount: of each deployment every volume version once.

    That is what the active revision mounts, and until that has been ready also what those did whose replicas may serve
    meanwhile: a rollback leads to them.
    """
    query = (
        select(
            deployments.c.id,
            deployments.c.name,
            deployments.c.revision_id,
            deployments.c.revision_number,
            deployments.c.config,
            _UNTRIED,
        )
        .join(revisions, revisions.c.id == deployments.c.revision_id)
        .where(
            deployments.c.project_id == project_id,
            deployments.c.deleted_at.is_(None),
            # Most mount nothing, and a configuration may be long.
            or_(deployments.c.config.contains(_HAS_MOUNTS), _UNTRIED),
        )
    )
    found: list[Mounting] = []
    for row in conn.execute(query).all():
        serving = may_serve(conn, row.id, row.revision_id, now) if row.untried else []
        mounts: list[tuple[VolumeMount, int | None]] = []
        for revision in reversed(serving):
            mounts += [(mount, revision.number) for mount in revision.config.volumes]
        mounts += [(mount, None) for mount in decode_config(row.config).volumes]  # the active one's word is the last
        versions = {
            (mount.volume_id, mount.version): Mounting(row.id, row.name, row.revision_number, mount, number)
            for mount, number in mounts
        }
        found += versions.values()
    return found


def copied(conn: Connection) -> list[tuple[Volume, VolumeVersion]]:
    """The versions of all projects whose files are to be copied from elsewhere, or are being so; the oldest first."""
    waiting = volume_versions.c.state.in_([str(VolumeState.PENDING), str(VolumeState.SYNCING)])
    query = select(volume_versions).where(waiting).order_by(volume_versions.c.created_at)
    found = [_version(row) for row in conn.execute(query).mappings()]
    ids = {each.volume_id for each in found}
    rows = conn.execute(select(volumes).where(volumes.c.id.in_(ids))).mappings()
    by_id = {row["id"]: Volume(**row) for row in rows}
    return [(by_id[each.volume_id], each) for each in found if each.volume_id in by_id]


def newest_from(conn: Connection, volume_id: str, uri: str) -> int | None:
    """The newest version of a volume that is ready and was copied from there; None: there is none."""
    mine = and_(
        volume_versions.c.volume_id == volume_id,
        volume_versions.c.state == str(VolumeState.READY),
        volume_versions.c.origin_uri == uri,
    )
    return conn.execute(select(func.max(volume_versions.c.number)).where(mine)).scalar()


def move(conn: Connection, volume_id: str, number: int, target: VolumeState, now: float, message: str = "") -> bool:
    """Bring a version that is copied into another state; False where that is no longer to be done."""
    sources = [str(state) for state, targets in VOLUME_MOVES.items() if target in targets]
    copied_one = and_(
        _is(volume_id, number), volume_versions.c.origin_uri.is_not(None), volume_versions.c.state.in_(sources)
    )
    values = {"state": str(target), "message": message, "sealed_at": now if target in _FINAL else None}
    return conn.execute(volume_versions.update().where(copied_one).values(**values)).rowcount == 1


def note(conn: Connection, volume_id: str, number: int, message: str) -> bool:
    """Say how a version stands that is being copied, or what hinders it; False where it is not copied any more."""
    syncing = and_(_is(volume_id, number), volume_versions.c.state == str(VolumeState.SYNCING))
    return conn.execute(volume_versions.update().where(syncing).values(message=message)).rowcount == 1


def finish_copy(conn: Connection, volume: Volume, number: int, now: float) -> bool:
    """Seal a version whose files have all been copied; False where it is gone, or failed by that.

    Raises:
        Unchecked: Nobody has looked at its paths.
    """
    found = version(conn, volume.id, number)
    if found is None or found.state is not VolumeState.SYNCING:
        return False
    trouble = volume_checks.trouble_of(conn, volume, number)
    target = VolumeState.FAILED if trouble else VolumeState.READY
    return move(conn, volume.id, number, target, now, trouble) and not trouble


def _begin(conn: Connection, volume: Volume, begun: VolumeVersion, early: Sequence[str]) -> None:
    origin = begun.origin
    conn.execute(
        volume_versions.insert().values(
            volume_id=volume.id,
            number=begun.number,
            state=str(begun.state),
            message=begun.message,
            origin_uri=None if origin is None else origin.uri,
            origin_role_arn=None if origin is None else origin.role_arn,
            origin_secret=None if origin is None else origin.credentials_secret,
            created_at=begun.created_at,
        )
    )
    volume_files.adopt(conn, volume, begun.number, early)
    if origin is not None:
        announce(conn, VOLUMES)


def _named(project_id: str, name_or_id: str) -> Select[Any]:
    query = select(volumes).where(volumes.c.project_id == project_id)
    return named(query, volumes.c.name, volumes.c.id, name_or_id)


def _is(volume_id: str, number: int) -> ColumnElement[bool]:
    return and_(volume_versions.c.volume_id == volume_id, volume_versions.c.number == number)


def _version(row: Any) -> VolumeVersion:
    origin = None
    if row["origin_uri"] is not None:
        origin = VolumeOrigin(
            uri=row["origin_uri"], role_arn=row["origin_role_arn"], credentials_secret=row["origin_secret"]
        )
    return VolumeVersion(
        volume_id=row["volume_id"],
        number=row["number"],
        state=VolumeState(row["state"]),
        message=row["message"],
        origin=origin,
        created_at=row["created_at"],
        sealed_at=row["sealed_at"],
    )


def _why_not(volume: Volume, number: int, found: VolumeVersion | None) -> str:
    named = f"Version {number} of the volume '{volume.name}'"
    if found is None:
        newest = volume.current_version
        return f"The volume '{volume.name}' has no version {number}; it has 0{f' to {newest}' if newest else ''}."
    if found.state is VolumeState.OPEN:
        return f"{named} has no file yet: upload them, and deploy then."
    if found.state is VolumeState.FAILED:
        return f"{named} has failed: {found.message} Make a new version, for example with `jig volumes update`."
    return f"{named} is {found.state}: its files are still copied. Deploy when it is ready (`jig volumes describe`)."
