"""Files and volumes."""

import msgspec

from machineshop.states import VolumeState

# More versions than anybody makes, and fit for any database.
MAX_VOLUME_VERSION = 999_999_999


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a project's object storage."""

    project_id: str
    name: str
    size: int
    etag: str
    created_at: float
    digest: str | None = None
    """The SHA-256 of its bytes in hex digits; None where that is not known (yet)."""
    origin_tag: str | None = None
    """Which object of an origin it was copied from, in which state; None: it was uploaded."""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """How many files something has, and of how many bytes in all."""

    count: int = 0
    size: int = 0


class VolumeOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files of a version are copied from."""

    uri: str
    """`s3://bucket/prefix`."""
    role_arn: str | None = None
    """The role that the platform takes on to read it."""
    credentials_secret: str | None = None
    """The secret of the project that holds keys to it."""


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """Versioned read-only files; those of version n are the project's files whose names begin with `<name>/<n>/`."""

    id: str
    project_id: str
    name: str
    current_version: int
    created_at: float
    updated_at: float


class VolumeVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a volume."""

    volume_id: str
    number: int
    state: VolumeState
    message: str = ""
    """Why it failed."""
    origin: VolumeOrigin | None = None
    """None: its files are uploaded."""
    created_at: float
    sealed_at: float | None = None
    """Since when its files cannot change any more."""
