"""A platform as a worker sees it, on a port of this machine: one queue and a storage."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from .fake_queue import FakeQueue
from .fake_storage import FakeStorage

BODY_LIMIT_BYTES = 1 << 30


class FakePlatform(FakeQueue):
    """Serves a queue and a storage until it is stopped.

    Args:
        folder: where uploaded files lie.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.storage = FakeStorage(folder)
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Come up, on a free port; after a stop on the one of before, with the same jobs."""
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.add_routes([*self.routes(), *self.storage.routes()])
        # handler_cancellation: a poll whose worker has hung up would be waited for.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Go away, in the middle of whatever is under way."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
