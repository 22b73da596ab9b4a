"""The platform's storage as a worker sees it, in a folder: what a test gives out, and what a worker uploads."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from .fake_queue import authorized, error_answer

STORAGE = "/v1/storage"


class FakeStorage:
    """Files by name; `routes` is its HTTP side.

    Args:
        folder: where what is uploaded lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shared: dict[str, Path] = {}

    def share(self, path: Path) -> str:
        """Give a file out; returns its path in the storage's address space. The file is read where it lies."""
        name = f"{uuid.uuid4()}/{path.name}"
        self._shared[name] = path.resolve()
        return f"{STORAGE}/{quote(name)}"

    def find(self, address: str, base_url: str) -> Path | None:
        """Give the file that an address names; None where it names none of ours."""
        prefix = f"{base_url}{STORAGE}/"
        if not address.startswith(prefix):
            return None
        path = self._path(unquote(address[len(prefix) :]))
        return path if path.is_file() else None

    def routes(self) -> list[web.RouteDef]:
        """Give what a worker calls."""
        return [
            web.post(f"{STORAGE}/upload-request", self._upload_request),
            web.post(f"{STORAGE}/multipart/init", self._multipart_init),
            web.post(f"{STORAGE}/multipart/complete", self._multipart_complete),
            web.post(f"{STORAGE}/multipart/abort", self._multipart_abort),
            web.put("/signed/{name:.+}", self._put),
            web.get(f"{STORAGE}/{{name:.+}}", self._get),
        ]

    def _path(self, name: str) -> Path:
        # A name may hold slashes, and is one file all the same.
        return self._shared.get(name) or self._folder / quote(name, safe="")

    async def _upload_request(self, request: web.Request) -> web.Response:
        if not authorized(request):
            return error_answer(401, "wrong key")
        name = (await request.json())["filename"]
        return web.json_response({"path": name, "upload_url": _signed(request, name)})

    async def _multipart_init(self, request: web.Request) -> web.Response:
        if not authorized(request):
            return error_answer(401, "wrong key")
        wish = await request.json()
        upload_id = str(uuid.uuid4())
        parts = [
            {"part_number": n, **_signed(request, _part_name(upload_id, n))} for n in range(1, wish["parts_count"] + 1)
        ]
        return web.json_response({"upload_id": upload_id, "path": wish["filename"], "part_upload_urls": parts})

    async def _multipart_complete(self, request: web.Request) -> web.Response:
        if not authorized(request):
            return error_answer(401, "wrong key")
        wish = await request.json()
        path = self._path(wish["filename"])
        parts = [self._path(_part_name(wish["upload_id"], part["part_number"])) for part in wish["parts"]]
        await asyncio.get_running_loop().run_in_executor(None, _join, parts, path)
        return web.json_response({"path": wish["filename"], "size": path.stat().st_size})

    async def _multipart_abort(self, request: web.Request) -> web.Response:
        if not authorized(request):
            return error_answer(401, "wrong key")
        for part in self._folder.glob(f"{quote(_part_name((await request.json())['upload_id'], 0), safe='')[:-1]}*"):
            part.unlink()
        return web.json_response({})

    async def _put(self, request: web.Request) -> web.Response:
        path = self._path(request.match_info["name"])
        with path.open("wb") as file:
            async for chunk in request.content.iter_any():
                file.write(chunk)
        return web.Response(headers={"ETag": f'"{path.stat().st_size}"'})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if not authorized(request):
            return error_answer(401, "wrong key")
        path = self._path(request.match_info["name"])
        return web.FileResponse(path) if path.is_file() else error_answer(404, "no such file")


def _signed(request: web.Request, name: str) -> dict[str, Any]:
    return {"url": f"http://{request.host}/signed/{quote(name)}", "method": "PUT"}


def _part_name(upload_id: str, number: int) -> str:
    return f"{upload_id}-part-{number}"


def _join(parts: list[Path], path: Path) -> None:
    with path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                while chunk := file.read(1 << 20):
                    whole.write(chunk)
            part.unlink()
