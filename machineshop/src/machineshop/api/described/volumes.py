"""Volumes, their versions and files."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from machineshop.api.described.shapes import Id, Listed, Time
from machineshop.api.operation import Link, Operation, Query
from machineshop.services.volume_rules import MAX_BATCH, NAME, Batch, VolumeContent
from machineshop.store.volume_links import Held


class S3Shown(msgspec.Struct):
    """Where in an object storage files are copied from."""

    uri: str
    role_arn: str
    credentials_secret: str | UnsetType = UNSET


class OriginShown(msgspec.Struct):
    """Where files are copied from."""

    s3: S3Shown


class ContentShown(msgspec.Struct, kw_only=True):
    """Where the files of a version come from, and how many they are."""

    type: Literal["files"]
    files_count: int
    size: int
    source_prefix: str | UnsetType = UNSET
    origin: OriginShown | UnsetType = UNSET


class VolumeFileShown(msgspec.Struct):
    """A file of a version."""

    name: str
    size: int
    last_modified: Time
    sha256: str | None


class FullContentShown(ContentShown, kw_only=True):
    """Where the files of a version come from, and which they are."""

    files: list[VolumeFileShown]
    files_truncated: bool


class _VersionState(msgspec.Struct, kw_only=True):
    """How a version is doing."""

    version: int
    status: Literal["ready", "pending", "syncing", "failed"]
    status_message: str
    sealed_at: Time | None
    mounted_by: list[Id]


class VersionShown(_VersionState, kw_only=True):
    """A version that is not the current one."""

    content: ContentShown


class VolumeShown(_VersionState, kw_only=True):
    """A volume, and one of its versions."""

    object: Literal["volume"]
    id: Id
    name: str
    type: Literal["readOnly"]
    current_version: int
    mounts_count: int
    content: FullContentShown
    version_history: dict[str, VersionShown]
    created_at: Time
    updated_at: Time


class VolumeDeleted(msgspec.Struct):
    """A volume that is gone."""

    object: Literal["volume"]
    id: Id
    name: str
    deleted: Literal[True]


class FilesPage(msgspec.Struct):
    """Some files of a version."""

    object: Literal["list"]
    version: int
    data: list[VolumeFileShown]
    has_more: bool


class ClaimShown(msgspec.Struct):
    """What a version has of a file."""

    path: str
    status: Held


class BatchShown(msgspec.Struct):
    """What a version has got."""

    object: Literal["file_batch"]
    version: int
    files_count: int
    size: int


class ClaimsShown(msgspec.Struct):
    """What a version has of the files that were asked for, in their order."""

    object: Literal["list"]
    version: int
    data: list[ClaimShown]


_NAME: dict[str, Any] = {"pattern": f"^{NAME.pattern}$"}


class NewVolume(msgspec.Struct):
    """A volume to be."""

    name: Annotated[str, Meta(extra_json_schema=_NAME)]
    type: Literal["readOnly"]
    content: VolumeContent


class VolumeChanges(msgspec.Struct):
    """The next version of a volume."""

    content: VolumeContent | UnsetType = UNSET


BATCH_MEDIA = "application/octet-stream"
_OF_IT = {"volume": "$response.body#/name"}


def operations(base: str) -> dict[str, Operation]:
    """By method, for the volumes below a path; `LIST` is its list; the last four are of a version's files."""
    one = f"{base}/{{volume}}"
    return {
        "LIST": Operation(about="The project's volumes, by name.", answer=Listed[VolumeShown]),
        "POST": Operation(
            about="Make a volume.",
            body=NewVolume,
            answer=VolumeShown,
            errors={409: None},
            links=[Link(f"{method} {one}", _OF_IT) for method in ("GET", "PATCH", "DELETE")],
        ),
        "GET": Operation(
            about="A volume, and the files of one of its versions.",
            answer=VolumeShown,
            query=(Query("version", "Which version's files; the current one's, if it is not said.", int),),
        ),
        "PATCH": Operation(about="Make the next version of a volume.", body=VolumeChanges, answer=VolumeShown),
        "DELETE": Operation(
            about="Take a volume away, with all of its files.", answer=VolumeDeleted, errors={409: None}
        ),
        "FILES": Operation(
            about="A version's files, by name.",
            answer=FilesPage,
            query=(Query("limit", "How many."), Query("after", "The name that the last page ended with.")),
        ),
        "CLAIM": Operation(
            about="Which of a client's files need not be uploaded.", answer=ClaimsShown, errors={409: None}
        ),
        "BATCH": Operation(
            about="Upload many small files at once: all of them or none.",
            body=Batch,
            body_media=BATCH_MEDIA,
            body_about=f"A line of JSON, as the schema Batch describes it, of 1 to {MAX_BATCH} files. Behind the line "
            "feed that ends it follow the bytes of these files, in their order, with nothing between them.",
            answer=BatchShown,
            errors={409: None, 507: None},
        ),
        "CONTENTS": Operation(
            about="The bytes of many small files at once: a line of JSON as the body of a batch has it, with null for "
            "a hash that is not known yet, and behind its line feed the bytes, in the order that was asked for.",
            media=(BATCH_MEDIA,),
        ),
    }
