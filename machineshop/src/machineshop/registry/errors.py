"""From an error to the specification's code and the HTTP status: one table."""

from typing import Any

import msgspec
from starlette.responses import Response

from machineshop.errors import (
    BodyTooSlow,
    DiskFull,
    MachineshopError,
    NotAuthenticated,
    NotPermitted,
    PayloadTooLarge,
    RangeNotSatisfiable,
    TooManyFailures,
    Unavailable,
    status_of,
)
from machineshop.services.registry_errors import (
    BlobUnknown,
    ChunkOutOfOrder,
    DigestInvalid,
    GrantUnsupported,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PageInvalid,
    RegistryError,
    ScopeInsufficient,
    SizeInvalid,
    TagInvalid,
    Unsupported,
    UploadBusy,
    UploadUnknown,
)

CODES: dict[type[MachineshopError], tuple[str, int]] = {
    NameInvalid: ("NAME_INVALID", 400),
    NameUnknown: ("NAME_UNKNOWN", 404),
    DigestInvalid: ("DIGEST_INVALID", 400),
    BlobUnknown: ("BLOB_UNKNOWN", 404),
    UploadUnknown: ("BLOB_UPLOAD_UNKNOWN", 404),
    UploadBusy: ("BLOB_UPLOAD_INVALID", 409),
    ChunkOutOfOrder: ("BLOB_UPLOAD_INVALID", 416),
    SizeInvalid: ("SIZE_INVALID", 400),
    TagInvalid: ("TAG_INVALID", 400),
    ManifestUnknown: ("MANIFEST_UNKNOWN", 404),
    ManifestInvalid: ("MANIFEST_INVALID", 400),
    ManifestBlobUnknown: ("MANIFEST_BLOB_UNKNOWN", 400),
    PageInvalid: ("PAGINATION_NUMBER_INVALID", 400),
    GrantUnsupported: ("UNSUPPORTED", 400),
    Unsupported: ("UNSUPPORTED", 405),
    BodyTooSlow: ("UNKNOWN", 408),
    PayloadTooLarge: ("SIZE_INVALID", 413),
    RangeNotSatisfiable: ("RANGE_INVALID", 416),
    NotAuthenticated: ("UNAUTHORIZED", 401),
    ScopeInsufficient: ("UNAUTHORIZED", 401),
    NotPermitted: ("DENIED", 403),
    TooManyFailures: ("TOOMANYREQUESTS", 429),
    DiskFull: ("UNAVAILABLE", 507),
    Unavailable: ("UNAVAILABLE", 503),
}


def error_response(error: MachineshopError) -> Response:
    """The answer for an error, by the nearest class in the table."""
    other = ("UNKNOWN", status_of(error)[0])  # what the specification has no word for
    code, status = next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), other)
    detail = error.facts if isinstance(error, RegistryError) else None
    body: dict[str, Any] = {"errors": [{"code": code, "message": error.message, "detail": detail}]}
    headers = {}
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, Unsupported):
        headers["Allow"] = ", ".join(error.facts["allowed"])
    if isinstance(error, BodyTooSlow):
        headers["Connection"] = "close"  # the rest of the body may still come, and is no request
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
