"""Files in projects' object storage, and the secret that upload URLs are signed with."""

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, select

from machineshop.models import StoredFile
from machineshop.store.tables import attempt_files, files, settings

SIGNING_KEY = "storage_signing_key"


class FileRecord(msgspec.Struct, frozen=True):
    """A file, and the key of the blob with its bytes."""

    file: StoredFile
    blob_key: str
    job_id: str | None = None
    """The job whose output it is."""


def find_file(conn: Connection, project_id: str, name: str) -> FileRecord | None:
    """The project's file of this name."""
    row = conn.execute(select(files).where(_is(project_id, name))).mappings().first()
    if row is None:
        return None
    fields = dict(row)
    blob_key, job_id = fields.pop("blob_key"), fields.pop("job_id")
    return FileRecord(StoredFile(**fields), blob_key, job_id)


def put_file(conn: Connection, record: FileRecord) -> str | None:
    """Keep a file in the place of the one of its name; returns the blob key of that one, which nobody needs now."""
    file = record.file
    values = {
        "blob_key": record.blob_key,
        "size": file.size,
        "etag": file.etag,
        "created_at": file.created_at,
        "job_id": record.job_id,
    }
    mine = _is(file.project_id, file.name)
    replaced: str | None = conn.execute(select(files.c.blob_key).where(mine)).scalar()
    if replaced is None:
        conn.execute(files.insert().values(project_id=file.project_id, name=file.name, **values))
    else:
        conn.execute(files.update().where(mine).values(**values))
    return replaced


def remove_file(conn: Connection, project_id: str, name: str) -> str | None:
    """Remove a file; returns its blob key, or None where there is no such file."""
    mine = _is(project_id, name)
    removed: str | None = conn.execute(select(files.c.blob_key).where(mine)).scalar()
    conn.execute(delete(files).where(mine))
    return removed


def publish_attempt(conn: Connection, job_id: str, attempt: int) -> None:
    """Make the files of an attempt visible, in the place of older ones of their names."""
    mine = and_(attempt_files.c.job_id == job_id, attempt_files.c.attempt == attempt)
    for row in conn.execute(select(attempt_files).where(mine)).mappings().all():
        file = StoredFile(
            project_id=row["project_id"],
            name=row["name"],
            size=row["size"],
            etag=row["etag"],
            created_at=row["created_at"],
        )
        put_file(conn, FileRecord(file, row["blob_key"], job_id))
    conn.execute(delete(attempt_files).where(mine))


def used_blob_keys(conn: Connection, keys: list[str]) -> set[str]:
    """Those among these keys (some hundreds at most) that a file has."""
    return set(conn.execute(select(files.c.blob_key).where(files.c.blob_key.in_(keys))).scalars())


def find_signing_key(conn: Connection) -> str | None:
    """The secret of the upload URLs, if it was made yet."""
    return conn.execute(select(settings.c.value).where(settings.c.name == SIGNING_KEY)).scalar()


def ensure_signing_key(conn: Connection, candidate: str) -> str:
    """The secret of the upload URLs: `candidate` where there was none."""
    known = find_signing_key(conn)
    if known is not None:
        return known
    conn.execute(settings.insert().values(name=SIGNING_KEY, value=candidate))
    return candidate


def _is(project_id: str, name: str) -> ColumnElement[bool]:
    return and_(files.c.project_id == project_id, files.c.name == name)
