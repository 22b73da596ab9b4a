"""A server of files over https (or http), with a certificate made for the test run, that remembers who asked."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

from aiohttp import web


def make_certificate(directory: Path) -> Path:
    """Make a self-signed certificate for this machine; give the file with it and its key."""
    pem, key = directory / "cert.pem", directory / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", names, "-keyout", key, "-out", pem],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + key.read_text())
    return pem


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class FileServer:
    """Serves `files`; `/loop` redirects to itself, `/to?url=...` to anywhere, `/flaky/NAME` fails once."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[web.Request] = []
        self.port = 0
        self._tls = tls
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._get)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        path = request.match_info["path"]
        if path == "loop":
            raise web.HTTPFound("/loop")
        if path == "to":
            raise web.HTTPFound(request.query["url"])
        if path == "endless":
            return await self._endless(request)
        if path.startswith("flaky/"):
            if sum(earlier.path == request.path for earlier in self.requests) == 1:
                return web.Response(status=503)
            path = path.removeprefix("flaky/")
        return web.Response(body=self.files[path]) if path in self.files else web.Response(status=404)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await answer.write(b"x" * 65536)
            await asyncio.sleep(0.001)
        return answer
