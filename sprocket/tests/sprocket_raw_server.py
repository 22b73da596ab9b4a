"""A server that sends prepared bytes, one preparation per connection: what a proper HTTP server would never send."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """What one connection gets: bytes, and then the end of the connection, or silence."""

    data: bytes
    hangs: bool = False


class RawServer:
    """Plays its scripts in order, the last one again and again; keeps the heads of the requests."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.heads: list[dict[str, str]] = []
        self.port = 0
        self._host = "127.0.0.1"
        self._server: asyncio.Server | None = None
        self._stopped = asyncio.Event()
        self._connections: list[asyncio.Future[None]] = []

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._server = await asyncio.start_server(self._accept, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._stopped.set()
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.append(task)
        await task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = [line.partition(": ") for line in lines[1:] if line]
            self.heads.append({"path": lines[0].split(" ")[1], **{name.lower(): value for name, _, value in fields}})
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            writer.write(script.data)
            await writer.drain()
            if script.hangs:
                await self._stopped.wait()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def answer(status: str, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    """An answer; `length` is what it claims for its body, e.g. `answer("200 OK", b"ab", length=9, etag='"1"')`."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
