"""Blobs: `/v2/<name>/blobs/<digest>`."""

from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from machineshop.blobs.base import Blob
from machineshop.blobs.ranges import ByteRange, parse_range
from machineshop.errors import RangeNotSatisfiable
from machineshop.registry.endpoint import RegistryCall
from machineshop.services.registry import RegistryService


class BlobRoutes:
    """See, read and delete blobs."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service

    async def head(self, call: RegistryCall) -> Response:
        """Whether it is there, and its size."""
        digest = call.path["digest"]
        size = await self._service.blob_size(call.organization, call.name, digest)
        return Response(headers=_headers(digest, size))

    async def get(self, call: RegistryCall) -> Response:
        """Its bytes, or a range of them; or where they are, for what every client of a registry can follow."""
        digest = call.path["digest"]
        url = await self._service.blob_url(call.organization, call.name, digest)
        if url is not None:
            return Response(status_code=307, headers={"Location": url, "Docker-Content-Digest": digest})
        blob = await self._service.open_blob(call.organization, call.name, digest)
        try:
            wanted = parse_range(call.headers.get("range"), blob.size)
        except RangeNotSatisfiable:
            await blob.close()
            raise
        if wanted is None:
            return StreamingResponse(_bytes(call, blob), headers=_headers(digest, blob.size))
        headers = _headers(digest, wanted.size) | {"Content-Range": wanted.content_range(blob.size)}
        return StreamingResponse(_bytes(call, blob, wanted), 206, headers)

    async def delete(self, call: RegistryCall) -> Response:
        """Take it out of this repository."""
        await self._service.delete_blob(call.organization, call.name, call.path["digest"])
        return Response(status_code=202)


def _bytes(call: RegistryCall, blob: Blob, wanted: ByteRange | None = None) -> AsyncIterator[bytes | memoryview]:
    """As they are faster sent; what TLS is to encrypt is read first."""
    return blob.windows(wanted) if call.request.scope["scheme"] == "http" else blob.chunks(wanted)


def _headers(digest: str, size: int) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
    }
