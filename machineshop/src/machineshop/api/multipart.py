"""Large files in parts: `/v1/storage/multipart`, and the signed URLs by which the parts come in."""

from functools import partial
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.described import files as described
from machineshop.api.endpoint import Api, Call, iso
from machineshop.api.files import FileName, Name, SignedEndpoint, base_url_of, content_length
from machineshop.blobs.base import Part
from machineshop.bodies import pieces_of_body
from machineshop.http import WORK_SCOPES, json_response
from machineshop.services.multipart import MAX_PARTS, MultipartService
from machineshop.services.signatures import SIGNED_PART_PATH

# Ours are digests; an object storage has its own.
ETag = Annotated[str, msgspec.Meta(pattern=r'^"?[0-9A-Za-z-]{1,128}"?$(?!\n)')]


class Init(msgspec.Struct):
    """The body that begins an upload; the last two where the file is an output of a job."""

    filename: FileName
    parts_count: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": MAX_PARTS})]
    request_id: Name | None = None
    attempt_token: Name | None = None


class SentPart(msgspec.Struct):
    """A part, with the ETag that its upload was answered with; the quotes may stay away."""

    part_number: int
    etag: ETag


class Complete(msgspec.Struct):
    """The body that ends an upload."""

    filename: FileName
    upload_id: str
    parts: Annotated[list[SentPart], msgspec.Meta(max_length=MAX_PARTS)]


class Abort(msgspec.Struct):
    """The body that gives an upload up."""

    filename: FileName
    upload_id: str


def routes(api: Api, service: MultipartService) -> list[Route]:
    """The routes of uploads in parts; they must stand before those of files, which take any name."""
    multipart = MultipartRoutes(service)
    route = partial(api.route, scopes=WORK_SCOPES)
    path = f"{SIGNED_PART_PATH}/{{project_id}}/{{upload_id}}/{{part_number}}"
    return [
        route("POST", "/v1/storage/multipart/init", multipart.init, body=Init, operation=described.INIT),
        route(
            "POST", "/v1/storage/multipart/complete", multipart.complete, body=Complete, operation=described.COMPLETE
        ),
        route("POST", "/v1/storage/multipart/abort", multipart.abort, body=Abort, operation=described.ABORT),
        Route(path, SignedEndpoint(SIGNED_PART_PATH, multipart.receive), methods=["PUT"]),
    ]


class MultipartRoutes:
    """Begin, send a part, complete, give up."""

    def __init__(self, service: MultipartService) -> None:
        self._service = service

    async def init(self, call: Call) -> Response:
        """Where to put each part's bytes."""
        body: Init = call.body
        upload_id, urls = await self._service.begin(
            call.identity.key,
            body.filename,
            body.parts_count,
            base_url=base_url_of(call),
            request_id=body.request_id,
            attempt_token=body.attempt_token,
        )
        part_urls = [
            {"part_number": number, "url": url, "method": "PUT", "headers": {}} for number, url in enumerate(urls, 1)
        ]
        return json_response({"upload_id": upload_id, "path": body.filename, "part_upload_urls": part_urls})

    async def receive(self, request: Request) -> Response:
        """One part's bytes."""
        path = request.path_params
        number = path["part_number"]
        etag = await self._service.receive(
            path["project_id"],
            path["upload_id"],
            int(number) if number.isdecimal() and len(number) <= len(str(MAX_PARTS)) else 0,
            request.query_params,
            pieces_of_body(request.receive),
            content_length(request),
        )
        return Response(headers={"ETag": f'"{etag}"'})

    async def complete(self, call: Call) -> Response:
        """One file of all parts."""
        body: Complete = call.body
        parts = [Part(part.part_number, part.etag.strip('"')) for part in body.parts]
        done = await self._service.complete(call.identity.key, body.filename, body.upload_id, parts)
        return json_response({"path": done.name, "size": done.size, "completed_at": iso(done.completed_at)})

    async def abort(self, call: Call) -> Response:
        """No file."""
        body: Abort = call.body
        await self._service.abort(call.identity.key, body.filename, body.upload_id)
        return json_response({"object": "multipart_upload", "upload_id": body.upload_id, "aborted": True})
