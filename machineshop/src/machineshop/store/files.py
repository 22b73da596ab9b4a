"""Files in projects' object storage, those that attempts have uploaded, and the secret that signs upload URLs.

Several files of a volume may share one blob: it is garbage when no row names it any more. A row that comes to share one
is made while another that names it is held, so a blob that nobody names stays so.

A file of an attempt lies in `attempt_files` until its job is done: the transaction that stores the result moves it to
`files`. A row there whose attempt is over is garbage: its blob is removed first, then the row, so a crash in between
loses nothing and forgets nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select, union_all, update

from machineshop.errors import InvalidRequest, NotFound, StaleAttempt
from machineshop.models import StoredFile
from machineshop.states import JobState
from machineshop.store import projects, settings, volume_files
from machineshop.store.statement import Statement
from machineshop.store.tables import attempt_files, files, gone_volumes, jobs
from machineshop.store.volume_files import Place

SIGNING_KEY = "storage_signing_key"


class AttemptId(NamedTuple):
    """Which attempt of which job."""

    job_id: str
    number: int


class FileRecord(msgspec.Struct, frozen=True):
    """A file, and the key of the blob with its bytes."""

    file: StoredFile
    blob_key: str
    job_id: str | None = None
    """The job whose output it is."""


def find_file(conn: Connection, project_id: str, name: str) -> FileRecord | None:
    """The project's file of this name."""
    row = _FIND.one(conn, {"project_id": project_id, "name": name})
    if row is None:
        return None
    *fields, blob_key, job_id = row
    return FileRecord(StoredFile(**dict(zip(StoredFile.__struct_fields__, fields, strict=True))), blob_key, job_id)


def put_file(conn: Connection, record: FileRecord, copied_into: str | None = None) -> str | None:
    """Keep a file in the place of the one of its name; returns the blob key of that one, which it needs no longer.

    Arguments:
        conn: The connection.
        record: The file.
        copied_into: The id of the volume into which it is copied from the version's origin; None: it was uploaded.

    Raises:
        VolumeSealed: It belongs to a version of a volume whose files do not change like this.
        NotFound: The volume into which it is copied is gone, or the project is.
    """
    file = record.file
    projects.hold(conn, file.project_id)
    place = volume_files.place_of(conn, file.project_id, file.name)
    if copied_into is not None and (place is None or place.volume_id != copied_into):
        raise NotFound(what="volume", id=copied_into)
    if place is not None:
        volume_files.begin_change(conn, place, is_copied=copied_into is not None)
    mine = _is(file.project_id, file.name)
    replaced: str | None = conn.execute(select(files.c.blob_key).where(mine).with_for_update()).scalar()
    _PUT.run(conn, _placed(record, place))
    return replaced


def put_batch(
    conn: Connection, project_id: str, volume_name: str, number: int, records: Sequence[FileRecord]
) -> list[str]:
    """Keep files of a version of a volume; returns the blob keys of those of their names, which need them no longer.

    Raises:
        VolumeSealed: The version's files are settled.
        InvalidRequest: There is no such version, nor is it the next one.
        NotFound: The project is gone, or the volume.
    """
    projects.hold(conn, project_id)
    place = volume_files.open_place(conn, project_id, volume_name, number)
    replaced = volume_files.named(conn, project_id, [record.file.name for record in records])
    put_files(conn, records, place)
    return [row["blob_key"] for row in replaced.values()]


def put_files(conn: Connection, records: Sequence[FileRecord], place: Place) -> None:
    """Keep files of a version of a volume, which is open, in the place of those of their names."""
    if records:
        _PUT.run_each(conn, [_placed(record, place) for record in records])


def remove_file(conn: Connection, project_id: str, name: str) -> str | None:
    """Remove a file; returns its blob key, which others may have too, or None where there is no such file.

    Raises:
        VolumeSealed: It belongs to a version of a volume whose files do not change any more.
    """
    place = volume_files.place_of(conn, project_id, name)
    if place is not None:
        volume_files.begin_change(conn, place)
    is_seen = files.c.volume_id.is_(None) | files.c.volume_id.not_in(select(gone_volumes.c.id))
    removal = delete(files).where(_is(project_id, name), is_seen)
    return conn.execute(removal.returning(files.c.blob_key)).scalar()


def held_attempt(
    conn: Connection,
    project_id: str,
    job_id: str,
    *,
    deployment_id: str | None = None,
    replica_id: str | None = None,
    token: str | None = None,
) -> AttemptId:
    """The attempt that a job is in, for a holder of whom this is known; None is not compared.

    Raises:
        NotFound: The project has no such job.
        StaleAttempt: Nobody holds it, or somebody else.
    """
    row = _HELD.one(conn, {"project_id": project_id, "job_id": job_id})
    if row is None:
        raise NotFound(what="job", id=job_id)
    state, attempt, *held = row
    known = (deployment_id, replica_id, token)
    if state != JobState.RUNNING or any(
        mine is not None and mine != held_by for mine, held_by in zip(known, held, strict=True)
    ):
        raise StaleAttempt(state=state)
    return AttemptId(job_id, attempt)


def queue_of_attempt(conn: Connection, project_id: str, attempt: AttemptId) -> str:
    """The deployment in whose queue the job of an attempt is.

    Raises:
        StaleAttempt: The attempt is over.
    """
    row = _HELD.one(conn, {"project_id": project_id, "job_id": attempt.job_id})
    if row is None:
        raise StaleAttempt(state="gone")
    state, number, deployment_id = row[:3]
    if (state, number) != (JobState.RUNNING, attempt.number):
        raise StaleAttempt(state=state)
    found: str = deployment_id
    return found


def put_attempt_file(conn: Connection, attempt: AttemptId, record: FileRecord) -> str | None:
    """Keep a file of an attempt, which nobody sees until its result is stored; the queue's lock is held.

    Returns what `put_file` does, of the file that the same attempt has uploaded under this name before.

    Raises:
        StaleAttempt: The attempt is over.
        InvalidRequest: Its name is a volume's.
    """
    project_id = record.file.project_id
    if volume_files.place_of(conn, project_id, record.file.name) is not None:
        raise InvalidRequest("An output of a job can be no file of a volume: give it another name.", param="filename")
    marked = _MARK.run(conn, {"project_id": project_id, "job_id": attempt.job_id, "attempt": attempt.number})
    if not marked.rowcount:
        row = _HELD.one(conn, {"project_id": project_id, "job_id": attempt.job_id})
        raise StaleAttempt(state="gone" if row is None else row[0])
    values = {**_values(record), "job_id": attempt.job_id, "attempt": attempt.number}
    before = _BEFORE.one(conn, values)
    _PUT_OF_ATTEMPT.run(conn, values)
    return None if before is None else before[0]


def publish_attempt(conn: Connection, job_id: str, attempt: int) -> None:
    """Make the files of an attempt visible, in the place of older ones of their names; the attempt is just over."""
    for row in conn.execute(select(attempt_files).where(_of(job_id, attempt))).mappings().all():
        file = StoredFile(**{name: row[name] for name in StoredFile.__struct_fields__ if name in row})
        if volume_files.place_of(conn, file.project_id, file.name) is not None:
            continue  # the name has become a volume's since: the row stays behind, as garbage
        replaced = put_file(conn, FileRecord(file, row["blob_key"], job_id))
        mine = and_(_of(job_id, attempt), attempt_files.c.name == file.name)
        if replaced is None:
            conn.execute(delete(attempt_files).where(mine))
        else:  # the row stays behind with the blob that is to be removed
            conn.execute(update(attempt_files).where(mine).values(blob_key=replaced))


def blobs_of_ended_attempts(conn: Connection, limit: int) -> list[str]:
    """The blobs of `attempt_files` whose attempts are over, `limit` at most: nobody will ever see them."""
    ended = or_(jobs.c.id.is_(None), jobs.c.state != str(JobState.RUNNING), jobs.c.attempt != attempt_files.c.attempt)
    joined = attempt_files.outerjoin(jobs, jobs.c.id == attempt_files.c.job_id)
    return list(conn.execute(select(attempt_files.c.blob_key).select_from(joined).where(ended).limit(limit)).scalars())


def forget_attempt_files(conn: Connection, blob_keys: list[str]) -> None:
    """Remove the rows of `attempt_files` that have these blobs."""
    conn.execute(delete(attempt_files).where(attempt_files.c.blob_key.in_(blob_keys)))


def jobs_with_files(conn: Connection, after: str, limit: int) -> list[str]:
    """The ids of the jobs that files are outputs of, `limit` at most, in order from the one after `after` on."""
    query = select(files.c.job_id).distinct().where(files.c.job_id > after).order_by(files.c.job_id).limit(limit)
    return list(conn.execute(query).scalars())


def gone_jobs(conn: Connection, job_ids: Sequence[str]) -> set[str]:
    """Those among these ids that are no job's."""
    return set(job_ids) - set(conn.execute(select(jobs.c.id).where(jobs.c.id.in_(job_ids))).scalars())


def remove_files_of_jobs(conn: Connection, job_ids: Sequence[str]) -> list[str]:
    """Remove the outputs of jobs that are gone; returns their blob keys."""
    return list(conn.execute(delete(files).where(files.c.job_id.in_(job_ids)).returning(files.c.blob_key)).scalars())


def visible_blob_keys(conn: Connection, keys: list[str]) -> set[str]:
    """Those among these keys (some hundreds at most) that a visible file has."""
    return set(conn.execute(select(files.c.blob_key).where(files.c.blob_key.in_(keys))).scalars())


def used_blob_keys(conn: Connection, keys: list[str]) -> set[str]:
    """Those among these keys (some hundreds at most) that a file has, visible or not yet."""
    # One statement, so that a file which becomes visible meanwhile is in one table or the other.
    visible = select(files.c.blob_key).where(files.c.blob_key.in_(keys))
    not_yet = select(attempt_files.c.blob_key).where(attempt_files.c.blob_key.in_(keys))
    return set(conn.execute(union_all(visible, not_yet)).scalars())


def find_signing_key(conn: Connection) -> str | None:
    """The secret of the upload URLs, if it was made yet."""
    return settings.find(conn, SIGNING_KEY)


def ensure_signing_key(conn: Connection, candidate: str) -> str:
    """The secret of the upload URLs: `candidate` where there was none."""
    return settings.ensure(conn, SIGNING_KEY, candidate)


def _is(project_id: str, name: str) -> ColumnElement[bool]:
    return and_(files.c.project_id == project_id, files.c.name == name)


def _of(job_id: str, attempt: int) -> ColumnElement[bool]:
    return and_(attempt_files.c.job_id == job_id, attempt_files.c.attempt == attempt)


def _values(record: FileRecord) -> dict[str, Any]:
    return {**msgspec.structs.asdict(record.file), "blob_key": record.blob_key}


def _placed(record: FileRecord, place: Place | None) -> dict[str, Any]:
    return {
        **_values(record),
        "job_id": record.job_id,
        "volume_id": None if place is None else place.volume_id,
        "volume_version": None if place is None else place.number,
    }


_FIND = Statement(
    f"SELECT {', '.join(StoredFile.__struct_fields__)}, blob_key, job_id FROM files "
    "WHERE project_id = :project_id AND name = :name "
    "AND NOT EXISTS (SELECT 1 FROM gone_volumes WHERE gone_volumes.id = files.volume_id)"
)
_REPLACE = "DO UPDATE SET blob_key = excluded.blob_key, size = excluded.size, etag = excluded.etag, "
_PUT = Statement(
    "INSERT INTO files (project_id, name, blob_key, size, etag, created_at, job_id, digest, origin_tag, volume_id, "
    "volume_version) VALUES (:project_id, :name, :blob_key, :size, :etag, :created_at, :job_id, :digest, :origin_tag, "
    ":volume_id, :volume_version) "
    f"ON CONFLICT (project_id, name) {_REPLACE} created_at = excluded.created_at, job_id = excluded.job_id, "
    "digest = excluded.digest, origin_tag = excluded.origin_tag, volume_id = excluded.volume_id, "
    "volume_version = excluded.volume_version, hash_again_at = NULL"
)
_ONE_JOB = "project_id = :project_id AND id = :job_id"
_HELD = Statement(f"SELECT state, attempt, deployment_id, replica_id, attempt_token FROM jobs WHERE {_ONE_JOB}")
_MARK = Statement(
    f"UPDATE jobs SET has_files = 1 WHERE {_ONE_JOB} AND state = '{JobState.RUNNING}' AND attempt = :attempt"
)
_BEFORE = Statement("SELECT blob_key FROM attempt_files WHERE job_id = :job_id AND attempt = :attempt AND name = :name")
_PUT_OF_ATTEMPT = Statement(
    "INSERT INTO attempt_files (job_id, attempt, name, project_id, blob_key, size, etag, created_at) "
    "VALUES (:job_id, :attempt, :name, :project_id, :blob_key, :size, :etag, :created_at) "
    f"ON CONFLICT (job_id, attempt, name) {_REPLACE} created_at = excluded.created_at"
)
