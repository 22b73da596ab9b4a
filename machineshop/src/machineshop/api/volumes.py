"""The routes of volumes: `/v1/deployments/storage/volumes`. Large files come and go by the routes of files."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from machineshop.api.described import volumes as described
from machineshop.api.described.volumes import BATCH_MEDIA
from machineshop.api.endpoint import Api, Call, decode, iso
from machineshop.errors import InvalidRequest, MalformedBody
from machineshop.http import VIEWER_SCOPES, json_response
from machineshop.models import StoredFile
from machineshop.services.volume_downloads import VolumeDownloads
from machineshop.services.volume_rules import Batch, Claims, VolumeFields, Wanted, as_builtins
from machineshop.services.volume_uploads import VolumeUploads
from machineshop.services.volumes import MAX_PAGE, SeenVersion, SeenVolume, VolumeService
from machineshop.store.volume_files import path_of, prefix_of

DEFAULT_PAGE = 1000
# `MAX_CLAIMS` of the longest paths, with every character escaped, come to more: who has such sends fewer at a time.
CLAIMS_LIMIT_BYTES = 8 * 1024 * 1024
# A batch is held in memory: of larger files a request for each costs little beside their bytes.
BATCH_LIMIT_BYTES = 8 * 1024 * 1024
_BATCH = msgspec.json.Decoder(Batch)


def routes(api: Api, volumes: VolumeService, uploads: VolumeUploads, downloads: VolumeDownloads) -> list[Route]:
    """All routes of this module; they come before those of files, which would take them for one's name."""
    pages = _Volumes(volumes, uploads, downloads)
    written: dict[str, Any] = {"body": VolumeFields}
    claimed: dict[str, Any] = {"body": Claims, "body_limit_bytes": CLAIMS_LIMIT_BYTES}
    wanted: dict[str, Any] = {"body": Wanted, "scopes": VIEWER_SCOPES}
    found: list[Route] = []
    for base in ("/v1/deployments/storage/volumes", "/v1/storage/volumes"):
        one = f"{base}/{{volume}}"
        files = f"{one}/versions/{{version}}/files"
        say = described.operations(base)
        found += [
            api.route("GET", base, pages.list_all, operation=say["LIST"]),
            api.route("POST", base, pages.create, **written, action="volume.create", operation=say["POST"]),
            api.route("GET", one, pages.get, operation=say["GET"]),
            api.route("PATCH", one, pages.update, **written, action="volume.update", operation=say["PATCH"]),
            api.route("DELETE", one, pages.delete, action="volume.delete", operation=say["DELETE"]),
            api.route("GET", files, pages.list_files, operation=say["FILES"]),
            api.route("POST", files, pages.claim, **claimed, operation=say["CLAIM"]),
            api.route("PUT", files, pages.put_files, operation=say["BATCH"]),
            api.route("POST", f"{files}/contents", pages.read_files, **wanted, operation=say["CONTENTS"]),
        ]
    return found


class _Volumes:
    """The handlers."""

    def __init__(self, volumes: VolumeService, uploads: VolumeUploads, downloads: VolumeDownloads) -> None:
        self._volumes = volumes
        self._uploads = uploads
        self._downloads = downloads

    async def list_all(self, call: Call) -> Response:
        found = await self._volumes.list_all(call.project_id)
        return json_response({"object": "list", "data": [_view(each) for each in found]})

    async def create(self, call: Call) -> Response:
        made = await self._volumes.create(call.project_id, call.body)
        call.changed(made.volume.name, after=_recorded(made))
        return json_response(_view(made))

    async def get(self, call: Call) -> Response:
        text = call.query.get("version")
        number = None if text is None else _number(text, "version")
        return json_response(_view(await self._volumes.describe(call.project_id, call.path["volume"], number)))

    async def update(self, call: Call) -> Response:
        made = await self._volumes.update(call.project_id, call.path["volume"], call.body)
        call.changed(made.volume.name, after=_recorded(made))
        return json_response(_view(made))

    async def delete(self, call: Call) -> Response:
        if "version" in call.query:
            raise InvalidRequest(
                "Versions are not deleted one by one: leave 'version' out to delete the volume with all that it has.",
                param="version",
            )
        gone = await self._volumes.delete(call.project_id, call.path["volume"])
        call.changed(gone.name, before={"current_version": gone.current_version})
        return json_response({"object": "volume", "id": gone.id, "name": gone.name, "deleted": True})

    async def list_files(self, call: Call) -> Response:
        """One page of a version's files."""
        number = _number(call.path["version"], "version")
        limit = _number(call.query.get("limit") or str(DEFAULT_PAGE), "limit")
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"'limit' is {limit}; it must be 1 to {MAX_PAGE}.", param="limit")
        files, has_more = await self._volumes.list_files(
            call.project_id, call.path["volume"], number, call.query.get("after") or "", limit
        )
        data = [_file_view(file) for file in files]
        return json_response({"object": "list", "version": number, "data": data, "has_more": has_more})

    async def claim(self, call: Call) -> Response:
        """Which of a client's files need not be uploaded."""
        number = _number(call.path["version"], "version")
        claims = call.body.files
        held = await self._volumes.claim(call.project_id, call.path["volume"], number, claims)
        data = [{"path": claim.path, "status": each} for claim, each in zip(claims, held, strict=True)]
        return json_response({"object": "list", "version": number, "data": data})

    async def put_files(self, call: Call) -> Response:
        """Many small files at once."""
        number = _number(call.path["version"], "version")
        volume = await self._volumes.get(call.project_id, call.path["volume"])
        body = await call.read(BATCH_LIMIT_BYTES, "Send fewer files at a time, and a large one by itself.")
        end = body.find(b"\n")
        if end < 0:
            raise MalformedBody("The body has no line feed: it is a line of JSON and the files' bytes behind that.")
        batch = decode(body[:end], _BATCH)
        data = memoryview(body)[end + 1 :]
        await self._uploads.put(volume, number, batch.files, data)
        count = {"files_count": len(batch.files), "size": len(data)}
        return json_response({"object": "file_batch", "version": number, **count})

    async def read_files(self, call: Call) -> Response:
        """The bytes of many small files, in the form in which `put_files` takes them."""
        number = _number(call.path["version"], "version")
        volume = await self._volumes.get(call.project_id, call.path["volume"])
        files, pieces = await self._downloads.open(volume, number, call.body.paths)
        told = [{"path": path_of(file), "size": file.size, "sha256": file.digest} for file in files]
        head = msgspec.json.encode({"files": told}) + b"\n"
        length = len(head) + sum(file.size for file in files)
        headers = {"Content-Length": str(length), "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(_behind(head, pieces), headers=headers, media_type=BATCH_MEDIA)


async def _behind(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in pieces:
        yield piece


def _view(seen: SeenVolume) -> dict[str, Any]:
    volume, shown = seen.volume, seen.shown
    content = {
        **_content_view(volume.name, shown),
        "files": [_file_view(file) for file in seen.files],
        "files_truncated": len(seen.files) < shown.contents.count,
    }
    return {
        "object": "volume",
        "id": volume.id,
        "name": volume.name,
        "type": "readOnly",
        "current_version": volume.current_version,
        "mounts_count": seen.mounts_count,
        **_version_view(shown),
        "content": content,
        "version_history": {
            str(each.version.number): {**_version_view(each), "content": _content_view(volume.name, each)}
            for each in seen.versions
            if each.version.number != volume.current_version
        },
        "created_at": iso(volume.created_at),
        "updated_at": iso(volume.updated_at),
    }


def _version_view(seen: SeenVersion) -> dict[str, Any]:
    return {
        "version": seen.version.number,
        "status": seen.status,
        "status_message": seen.message,
        "sealed_at": iso(seen.version.sealed_at),
        "mounted_by": seen.mounted_by,
    }


def _content_view(name: str, seen: SeenVersion) -> dict[str, Any]:
    """A version has either a prefix or an origin, as clients know it; where its files lie is the same for both."""
    view: dict[str, Any] = {"type": "files", "files_count": seen.contents.count, "size": seen.contents.size}
    if seen.version.origin is None:
        view["source_prefix"] = prefix_of(name, seen.version.number).rstrip("/")
    else:
        view["origin"] = as_builtins(seen.version.origin)
    return view


def _file_view(file: StoredFile) -> dict[str, Any]:
    return {
        "name": path_of(file),
        "size": file.size,
        "last_modified": iso(file.created_at),
        "sha256": file.digest,
    }


def _recorded(seen: SeenVolume) -> dict[str, Any]:
    """What the record of changes keeps: where the files come from, not each of them."""
    return {
        "current_version": seen.volume.current_version,
        "content": _content_view(seen.volume.name, seen.shown),
    }


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise InvalidRequest(f"'{name}' is '{text[:64]}', not a whole number.", param=name)
    return int(text)
