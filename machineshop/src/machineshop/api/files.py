"""Files: `/v1/storage`. The bytes come in by signed URLs and go out by their name."""

import asyncio
import logging
import mimetypes
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from machineshop.api.described import files as described
from machineshop.api.endpoint import Api, Call
from machineshop.blobs.base import CHUNK_BYTES
from machineshop.blobs.ranges import parse_range
from machineshop.bodies import pieces_of_body
from machineshop.errors import MachineshopError, RangeNotSatisfiable
from machineshop.http import ANY_SCOPE, WORK_SCOPES, error_response, json_response
from machineshop.models import StoredFile
from machineshop.services.file_names import MAX_NAME_LENGTH
from machineshop.services.files import FileService
from machineshop.services.signatures import SIGNED_PATH

log = logging.getLogger(__name__)

# Both are one place; clients know it by either name.
PREFIXES = ("/v1/storage", "/v1/deployments/storage")
DEFAULT_CONTENT_TYPE = "application/octet-stream"

# Longer ones are no job's and no attempt's, and an error repeats them.
Name = Annotated[str, msgspec.Meta(max_length=255)]
# What else a name may not be, `check_file_name` says.
FileName = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NAME_LENGTH})]


class UploadRequest(msgspec.Struct):
    """The body of an upload request; the last two where the file is an output of a job."""

    filename: FileName
    request_id: Name | None = None
    attempt_token: Name | None = None


def routes(api: Api, service: FileService) -> list[Route]:
    """The routes of files. The last ones take any name: routes below `/v1/storage/` must stand before them."""
    files = FileRoutes(service)
    found: list[Route] = [
        api.route(
            "POST",
            "/v1/storage/upload-request",
            files.request_upload,
            scopes=WORK_SCOPES,
            body=UploadRequest,
            operation=described.UPLOAD,
        ),
        Route(
            f"{SIGNED_PATH}/{{project_id}}/{{filename:path}}",
            SignedEndpoint(SIGNED_PATH, files.receive),
            methods=["PUT"],
        ),
    ]
    for prefix in PREFIXES:
        path = f"{prefix}/{{filename:path}}"
        found.append(api.route("GET", path, files.get, scopes=ANY_SCOPE, operation=described.READ))
        found.append(api.route("DELETE", path, files.delete, action="file.delete", operation=described.DELETE))
    return found


class FileRoutes:
    """Ask for an upload, upload, read, delete."""

    def __init__(self, service: FileService) -> None:
        self._service = service

    async def request_upload(self, call: Call) -> Response:
        """Where to put a file's bytes."""
        body: UploadRequest = call.body
        url = await self._service.upload_url(
            call.identity.key,
            body.filename,
            request_id=body.request_id,
            attempt_token=body.attempt_token,
            base_url=base_url_of(call),
        )
        return json_response(
            {
                "path": body.filename,
                "upload_url": {"url": url, "method": "PUT", "headers": {}},
                "url": self._service.file_url(body.filename),
            }
        )

    async def receive(self, request: Request) -> Response:
        """A file's bytes come in by a signed URL."""
        path = request.path_params
        file = await self._service.receive(
            path["project_id"],
            path["filename"],
            request.query_params,
            pieces_of_body(request.receive),
            content_length(request),
        )
        return Response(headers={"ETag": f'"{file.etag}"'})

    async def get(self, call: Call) -> Response:
        """A file's bytes, or a range of them; for HEAD its headers."""
        name = call.path["filename"]
        if call.request.method == "HEAD":
            return Response(headers=_headers(await self._service.find(call.project_id, name)))
        basename = name.rpartition("/")[2]
        url = await self._service.signed_url(call.project_id, name, _content_type(basename), _disposition(basename))
        if url is not None:
            return Response(status_code=307, headers={"Location": url, "Cache-Control": "no-store"})
        file, blob = await self._service.open(call.project_id, name)
        headers = _headers(file)
        try:
            wanted = parse_range(_range_header(call, headers["ETag"]), blob.size)
        except RangeNotSatisfiable as error:
            await blob.close()
            response = error_response(error)
            response.headers["Content-Range"] = f"bytes */{error.size}"
            return response
        status = 200
        if wanted is not None:
            status = 206
            headers |= {"Content-Length": str(wanted.size), "Content-Range": wanted.content_range(blob.size)}
        if blob.size <= CHUNK_BYTES:  # it comes as one chunk, and costs less to send as one
            return Response(b"".join([chunk async for chunk in blob.chunks(wanted)]), status, headers)
        return StreamingResponse(blob.chunks(wanted), status, headers)

    async def delete(self, call: Call) -> Response:
        """Remove a file."""
        name = call.path["filename"]
        await self._service.delete(call.project_id, name)
        call.changed(name)
        return json_response({"object": "file", "path": name, "deleted": True})


class SignedEndpoint:
    """The ASGI application that takes bytes without a key: the URL's signature says whose they are.

    Arguments:
        path: The first part of the URLs, for the log: the rest is a secret.
        receive: Answers one request, or raises what is to be answered.
    """

    def __init__(self, path: str, receive: Callable[[Request], Awaitable[Response]]) -> None:
        self._path = path
        self._receive = receive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._receive(Request(scope, receive))
        except ClientDisconnect:
            return
        except MachineshopError as error:
            response = error_response(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("api.defect method=PUT path=%s", self._path)
            response = error_response(MachineshopError())
        await response(scope, receive, send)


def base_url_of(call: Call) -> str | None:
    """Scheme, host and port under which the client reaches us, if it says so."""
    return f"{call.request.url.scheme}://{call.headers['host']}" if "host" in call.headers else None


def content_length(request: Request) -> int | None:
    """How many bytes will come, if that is known."""
    length = request.headers.get("content-length")
    return None if length is None else int(length)


def _headers(file: StoredFile) -> dict[str, str]:
    # What was uploaded is somebody's data: a browser must save it and not run it as a page of ours.
    basename = file.name.rpartition("/")[2]
    return {
        "Content-Type": _content_type(basename),
        "Content-Length": str(file.size),
        "Content-Disposition": _disposition(basename),
        "X-Content-Type-Options": "nosniff",
        "ETag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
    }


def _disposition(basename: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(basename, safe='')}"


def _content_type(basename: str) -> str:
    content_type, encoding = mimetypes.guess_type(basename)
    if encoding is not None:  # a .tar.gz is no tar before somebody unpacks it
        return "application/gzip" if encoding == "gzip" else DEFAULT_CONTENT_TYPE
    return content_type or DEFAULT_CONTENT_TYPE


def _range_header(call: Call, etag: str) -> str | None:
    """The Range header, unless it goes with another version of the file."""
    condition = call.headers.get("if-range")
    return call.headers.get("range") if condition in (None, etag) else None
