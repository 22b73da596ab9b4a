"""Uploads of blobs: `/v2/<name>/blobs/uploads/` begins one, the Location it answers with goes on and ends it."""

import re

from starlette.responses import Response

from machineshop.bodies import pieces_of_body
from machineshop.registry.endpoint import RegistryCall
from machineshop.registry.errors import error_response
from machineshop.services.registry import RegistryService
from machineshop.services.registry_errors import ChunkOutOfOrder, DigestInvalid, SizeInvalid
from machineshop.services.registry_tokens import PULL
from machineshop.services.uploads import BlobUpload

_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d+|\*))?", re.ASCII)


class UploadRoutes:
    """Begin, go on with, ask about, end and cancel uploads."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service

    async def post(self, call: RegistryCall) -> Response:
        """Begin an upload; with `mount`, take the blob from elsewhere; with `digest`, take the whole of it now."""
        mount, digest = call.query.get("mount"), call.query.get("digest")
        if mount and await self._mounted(call, mount):
            return _created(call, mount)
        repository = await self._service.ensure_repository(call.organization, call.name)
        if digest:
            await self._service.uploads.push(repository, digest, pieces_of_body(call.request.receive))
            return _created(call, digest)
        return _progress(call, await self._service.uploads.start(repository), 202)

    async def patch(self, call: RegistryCall) -> Response:
        """Append the body."""
        blob = await self._find(call, to_hold=True)
        try:
            await self._service.uploads.append(blob, pieces_of_body(call.request.receive), _first_byte(call, blob))
        except ChunkOutOfOrder as error:
            return _out_of_order(call, blob, error)
        return _progress(call, blob, 202)

    async def put(self, call: RegistryCall) -> Response:
        """Append the body, if any, and end the upload."""
        digest = call.query.get("digest")
        if not digest:
            raise DigestInvalid(message="The query parameter 'digest' is missing: what the whole blob must be.")
        blob = await self._find(call, to_hold=True)
        try:
            await self._service.uploads.finish(
                blob, digest, pieces_of_body(call.request.receive), _first_byte(call, blob)
            )
        except ChunkOutOfOrder as error:
            return _out_of_order(call, blob, error)
        return _created(call, digest)

    async def get(self, call: RegistryCall) -> Response:
        """How much has arrived."""
        return _progress(call, await self._find(call), 204)

    async def delete(self, call: RegistryCall) -> Response:
        """Cancel it."""
        await self._service.uploads.cancel(await self._find(call))
        return Response(status_code=204)

    async def _mounted(self, call: RegistryCall, digest: str) -> bool:
        """Whether the blob is here now; whoever may not read it there has to send it."""
        source = call.query.get("from")
        if call.visitor.claims is not None and not (source and call.visitor.may(source, PULL)):
            return False
        return await self._service.mount_blob(call.organization, call.name, digest, source)

    async def _find(self, call: RegistryCall, *, to_hold: bool = False) -> BlobUpload:
        repository = await self._service.repository(call.organization, call.name)
        return await self._service.uploads.find(repository, call.path["upload_id"], to_hold=to_hold)


def _first_byte(call: RegistryCall, blob: BlobUpload) -> int | None:
    """Where the body belongs, by its Content-Range; None where it has none."""
    header = call.headers.get("content-range")
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise ChunkOutOfOrder(size=blob.size)
    first, last = int(match[1]), int(match[2])
    length = call.headers.get("content-length")
    if length is not None and length != str(last - first + 1):
        raise SizeInvalid(message=f"The Content-Range {header} does not fit the Content-Length {length}.")
    return first


def _created(call: RegistryCall, digest: str) -> Response:
    headers = {"Location": f"/v2/{call.name}/blobs/{digest}", "Docker-Content-Digest": digest}
    return Response(status_code=201, headers=headers)


def _progress(call: RegistryCall, blob: BlobUpload, status: int) -> Response:
    return Response(status_code=status, headers=_state(call, blob))


def _out_of_order(call: RegistryCall, blob: BlobUpload, error: ChunkOutOfOrder) -> Response:
    response = error_response(error)
    response.headers.update(_state(call, blob))
    return response


def _state(call: RegistryCall, blob: BlobUpload) -> dict[str, str]:
    return {
        "Location": f"/v2/{call.name}/blobs/uploads/{blob.id}",
        "Range": f"0-{max(blob.size - 1, 0)}",  # there is no way to say 'nothing yet' with two inclusive ends
        "Docker-Upload-UUID": blob.id,
    }
