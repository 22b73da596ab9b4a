"""Files, whole and in parts."""

from typing import Literal

import msgspec

from machineshop.api.described.shapes import Id, Time
from machineshop.api.operation import Operation, Query


class UploadUrl(msgspec.Struct):
    """Where bytes are sent to, without a key."""

    url: str
    method: Literal["PUT"]
    headers: dict[str, str]


class Upload(msgspec.Struct):
    """Where to put a file, and where it will be."""

    path: str
    upload_url: UploadUrl
    url: str


class PartUrl(msgspec.Struct):
    """Where to put a part."""

    part_number: int
    url: str
    method: Literal["PUT"]
    headers: dict[str, str]


class PartsBegun(msgspec.Struct):
    """Where to put each part."""

    upload_id: Id
    path: str
    part_upload_urls: list[PartUrl]


class PartsDone(msgspec.Struct):
    """A file of all parts."""

    path: str
    size: int
    completed_at: Time


class PartsGivenUp(msgspec.Struct):
    """An upload that is no more."""

    object: Literal["multipart_upload"]
    upload_id: Id
    aborted: Literal[True]


class FileDeleted(msgspec.Struct):
    """A file that is gone."""

    object: Literal["file"]
    path: str
    deleted: Literal[True]


UPLOAD = Operation(about="Where to put a file.", answer=Upload, errors={404: None, 409: None})
INIT = Operation(about="Begin a file in parts.", answer=PartsBegun, errors={404: None, 409: None})
COMPLETE = Operation(about="Make one file of all parts.", answer=PartsDone, errors={404: None, 409: None})
ABORT = Operation(about="Take the parts of an upload away.", answer=PartsGivenUp, errors={404: None, 409: None})
READ = Operation(
    about="A file's bytes.",
    media=("application/octet-stream", "*/*"),
    headers=(
        Query("Range", "Some of the bytes."),
        Query("If-Range", "The `ETag` of the file that the range is of."),
    ),
    statuses={206: "The range that was asked for.", 307: "They are at another address."},
    errors={416: None},
    head=True,
)
DELETE = Operation(about="Take a file away.", answer=FileDeleted)
