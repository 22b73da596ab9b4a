"""What a volume's name, its content and the places where it is mounted must satisfy. Pure."""

import itertools
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from machineshop.errors import InvalidRequest, MalformedBody, VolumeUnusable
from machineshop.ids import is_id
from machineshop.models import VolumeMount, VolumeOrigin
from machineshop.services.file_names import RESERVED_FOLDER, check_file_name

NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
# As many as one call may tell the hashes of.
MAX_CLAIMS = 5000
# As many files as one request may ask for, or bring: their rows keep the store's writer from others for some
# milliseconds.
MAX_BATCH = 500
# `$` lets a line feed behind it pass.
DIGEST_PATTERN = r"^[0-9a-f]{64}$(?!\n)"
KEYS_PREFIX = "secret:"
MAX_PATH_LENGTH = 1024
# What the kernel shows there is no place for files.
_OF_THE_SYSTEM = ("/proc", "/sys", "/dev")
# As many bytes as a file may have anywhere.
_MAX_SIZE = 2**53


class S3Fields(msgspec.Struct, frozen=True):
    """Where in an object storage the files lie."""

    uri: Annotated[str, Meta(max_length=1200)]
    role_arn: Annotated[str, Meta(max_length=2048)] | None = None
    credentials_secret: Annotated[str, Meta(max_length=100)] | None = None


class OriginFields(msgspec.Struct, frozen=True):
    """Where a version's files are copied from."""

    s3: S3Fields


class VolumeContent(msgspec.Struct, frozen=True):
    """What a version has: one of the two."""

    type: Literal["files"] = "files"
    source_prefix: str | None = None
    origin: OriginFields | None = None


class VolumeFields(msgspec.Struct, frozen=True):
    """The body that makes or changes a volume."""

    name: str | UnsetType = UNSET
    type: Literal["readOnly"] | UnsetType = UNSET
    content: VolumeContent | UnsetType = UNSET


class Claim(msgspec.Struct, frozen=True):
    """A file that a client has."""

    path: Annotated[str, Meta(min_length=1, max_length=512)]
    size: Annotated[int, Meta(ge=0, le=_MAX_SIZE)]
    sha256: Annotated[str, Meta(pattern=DIGEST_PATTERN)]


class Claims(msgspec.Struct, frozen=True):
    """The body that asks which of a client's files need not be uploaded."""

    files: Annotated[list[Claim], Meta(min_length=1, max_length=MAX_CLAIMS)]


class Batch(msgspec.Struct, frozen=True):
    """What a batch of files says before their bytes."""

    files: Annotated[list[Claim], Meta(min_length=1, max_length=MAX_BATCH)]


class Wanted(msgspec.Struct, frozen=True):
    """The body that asks for the bytes of many files."""

    paths: Annotated[list[Annotated[str, Meta(min_length=1, max_length=512)]], Meta(min_length=1, max_length=MAX_BATCH)]


def check_name(name: str) -> None:
    """Refuse what cannot be a volume's name.

    Raises:
        InvalidRequest: It would be no good folder, or no good part of a URL.
    """
    if not NAME.fullmatch(name) or name in {".", "..", RESERVED_FOLDER}:
        raise InvalidRequest(
            f"'{name[:100]}' cannot be a volume's name: use 1 to 100 letters, digits, '_', '.' and '-', and neither "
            f"'.', '..' nor '{RESERVED_FOLDER}'.",
            param="name",
        )
    if is_id(name):
        raise InvalidRequest(
            f"'{name}' cannot be a volume's name: it looks like the id of one. Call it otherwise.", param="name"
        )


def origin_of(name: str, number: int, content: VolumeContent) -> VolumeOrigin | None:
    """Where the files of a version that is to be made come from; None: they are uploaded under its prefix.

    Raises:
        InvalidRequest: The content says neither or both, or another prefix than the version's.
    """
    if (content.source_prefix is None) == (content.origin is None):
        raise InvalidRequest(
            "'content' needs one of the two: 'source_prefix' for files that are uploaded, or 'origin' for files that "
            "are copied.",
            param="content",
        )
    if content.origin is not None:
        s3 = content.origin.s3
        role = s3.role_arn or ""
        if role.startswith(KEYS_PREFIX):  # clients that know of roles alone can name a secret too
            return VolumeOrigin(uri=s3.uri, credentials_secret=s3.credentials_secret or role.removeprefix(KEYS_PREFIX))
        return VolumeOrigin(uri=s3.uri, role_arn=role or None, credentials_secret=s3.credentials_secret or None)
    prefix = f"{name}/{number}"
    if (content.source_prefix or "").rstrip("/") != prefix:
        raise InvalidRequest(
            f"The files of version {number} of the volume '{name}' lie under '{prefix}': upload them there, and send "
            f"'source_prefix': '{prefix}', not '{(content.source_prefix or '')[:200]}'.",
            param="content.source_prefix",
        )
    return None


def required(fields: VolumeFields) -> tuple[str, VolumeContent]:
    """The name and the content of a volume that is to be made.

    Raises:
        MalformedBody: One of its fields is missing.
        InvalidRequest: Its name cannot be one.
    """
    name, content = fields.name, fields.content
    if isinstance(name, UnsetType):
        raise MalformedBody("The field 'name' is missing.", param="name")
    if isinstance(fields.type, UnsetType):
        raise MalformedBody("The field 'type' is missing: it is 'readOnly'.", param="type")
    if isinstance(content, UnsetType):
        raise MalformedBody("The field 'content' is missing.", param="content")
    check_name(name)
    return name, content


def check_claims(prefix: str, claims: Sequence[Claim]) -> None:
    """Refuse paths that no uploaded file could have.

    Raises:
        InvalidRequest: One is none, or is there twice.
    """
    check_paths(prefix, [claim.path for claim in claims], "files")


def check_paths(prefix: str, paths: Sequence[str], param: str) -> None:
    """Refuse paths that no file of a version could have.

    Args:
        prefix: What the names of the version's files begin with.
        paths: What comes behind that.
        param: The field of the body that has them.

    Raises:
        InvalidRequest: One is none, or is there twice.
    """
    for path in paths:
        try:
            check_file_name(prefix + path)
        except InvalidRequest as error:
            raise InvalidRequest(f"'{path[:200]}': {error.message}", param=param) from None
    if len(set(paths)) < len(paths):
        raise InvalidRequest(f"'{param}' has a path twice.", param=param)


def check_mounts(mounts: Sequence[VolumeMount]) -> None:
    """Refuse places where volumes cannot be.

    Raises:
        VolumeUnusable: A path is none, is the system's, or is another one's or within it.
    """
    paths = []
    for mount in mounts:
        _check_mount_path(mount)
        paths.append((PurePosixPath(mount.mount_path), mount.name))
    paths.sort()
    for (path, name), (other, other_name) in itertools.pairwise(paths):
        if other == path:
            raise VolumeUnusable(
                f"The volumes '{name}' and '{other_name}' are both mounted at '{path}': give each a path of its own."
            )
        if other.is_relative_to(path):
            raise VolumeUnusable(
                f"The volumes '{name}' and '{other_name}' are mounted at '{path}' and '{other}', one within the other: "
                "mount them beside each other."
            )


def _check_mount_path(mount: VolumeMount) -> None:
    path = mount.mount_path
    normal = path.startswith("/") and all(part not in {"", ".", ".."} for part in path[1:].split("/"))
    if not normal or len(path) > MAX_PATH_LENGTH or not path.isprintable() or ":" in path or "," in path:
        raise VolumeUnusable(
            f"The volume '{mount.name}' cannot be mounted at '{path[:200]}': mount_path must be absolute and plain, as "
            f"'/models/a', without '..', '//', ':' or ',', not '/', and of {MAX_PATH_LENGTH} characters at most."
        )
    if any(PurePosixPath(path).is_relative_to(taken) for taken in _OF_THE_SYSTEM):
        raise VolumeUnusable(
            f"The volume '{mount.name}' cannot be mounted at '{path}': {', '.join(_OF_THE_SYSTEM)} are the system's."
        )


def as_builtins(origin: VolumeOrigin) -> dict[str, Any]:
    """An origin as clients know it."""
    secret = origin.credentials_secret
    s3: dict[str, Any] = {"uri": origin.uri, "role_arn": origin.role_arn or ""}
    if secret is not None:
        s3 |= {"role_arn": KEYS_PREFIX + secret, "credentials_secret": secret}
    return {"s3": s3}
