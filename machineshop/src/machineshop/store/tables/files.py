"""Files of projects, of jobs' attempts and of volumes."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from machineshop.store.tables.base import Timestamp, metadata

files = Table(
    "files",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("name", String, primary_key=True),
    # Where the bytes lie among the blobs: a new upload gets a new key, so a reader never sees a mixture.
    Column("blob_key", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # The job whose output it is; it goes when the job goes.
    Column("job_id", String),
    # The SHA-256 of its bytes in hex digits, where that is known.
    Column("digest", String),
    # The volume and the version that it is a file of. The version may be the next one, of which there is no row yet.
    Column("volume_id", String),
    Column("volume_version", Integer),
    # Its bytes were not in the storage when they were to be hashed: when they are looked for again.
    Column("hash_again_at", Timestamp),
    # What it was copied from: the same tag, the same object, unchanged. Empty: it was uploaded.
    Column("origin_tag", String),
)
Index("ix_files_job_id", files.c.job_id)
# Whether a blob is anybody's: files with the same bytes may share one.
Index("ix_files_blob_key", files.c.blob_key)
_of_volume = text("volume_id IS NOT NULL")
_unhashed = text("volume_id IS NOT NULL AND digest IS NULL")
Index(
    "ix_files_volume",
    files.c.volume_id,
    files.c.volume_version,
    files.c.name,
    sqlite_where=_of_volume,
    postgresql_where=_of_volume,
)
# Which file of a volume has these bytes already.
Index(
    "ix_files_volume_digest",
    files.c.volume_id,
    files.c.digest,
    sqlite_where=_of_volume,
    postgresql_where=_of_volume,
)
Index(
    "ix_files_unhashed",
    files.c.hash_again_at,
    files.c.created_at,
    sqlite_where=_unhashed,
    postgresql_where=_unhashed,
)
_without_bytes = text("hash_again_at IS NOT NULL")
Index("ix_files_without_bytes", files.c.project_id, sqlite_where=_without_bytes, postgresql_where=_without_bytes)

# Files that an attempt has uploaded: they move to `files` in the transaction that stores its result.
attempt_files = Table(
    "attempt_files",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("name", String, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("blob_key", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

volumes = Table(
    "volumes",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("current_version", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("project_id", "name"),
)

volume_versions = Table(
    "volume_versions",
    metadata,
    Column("volume_id", String, ForeignKey("volumes.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String, nullable=False),
    Column("message", Text, nullable=False),
    # Where its files are copied from; empty: they are uploaded.
    Column("origin_uri", Text),
    Column("origin_role_arn", Text),
    # The name of a secret of the project.
    Column("origin_secret", String),
    Column("created_at", Timestamp, nullable=False),
    Column("sealed_at", Timestamp),
    # A look at its files' paths since whose beginning no file has come or gone, and what it has found, once it is over.
    Column("check_id", String),
    Column("paths_trouble", Text),
    CheckConstraint("state IN ('open', 'pending', 'syncing', 'ready', 'failed')", name="state"),
    CheckConstraint("(state IN ('ready', 'failed')) = (sealed_at IS NOT NULL)", name="sealed_has_time"),
    CheckConstraint("state NOT IN ('pending', 'syncing') OR origin_uri IS NOT NULL", name="copied_has_origin"),
)
_copied = text("state IN ('pending', 'syncing')")
Index("ix_volume_versions_copied", volume_versions.c.created_at, sqlite_where=_copied, postgresql_where=_copied)

# Volumes that were deleted, of which there are still files to remove: nobody sees those.
gone_volumes = Table(
    "gone_volumes",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", String, nullable=False),
)
