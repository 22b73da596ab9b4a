"""Hears what the other servers on a Postgres have written, as soon as it is committed (LISTEN)."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from machineshop.store.engines import CHANNEL, Engines

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 2.0
# By this name, followed by their ids, servers that listen are seen in the database.
APPLICATION = "machineshop-listener"


class Listener:
    """One connection that listens, made again whenever it breaks.

    Args:
        engines: The database.
        heard: Called with each piece of news of another server.
        missed: Called whenever it has just begun to listen: before that, anything may have happened.
    """

    def __init__(self, engines: Engines, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
        self._engines = engines
        self._heard = heard
        self._missed = missed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.create_task(self._run(), name="store-listener")

    async def close(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        import psycopg  # noqa: PLC0415 - as `engines.py` says

        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._listen()) as stream:
                    async for news in stream:
                        failures = 0
                        self._take(news)
            except psycopg.Error as error:
                failures += 1
                if failures == 1:
                    log.warning("listener.lost error=%s", (str(error).strip() or type(error).__name__).splitlines()[0])
            await asyncio.sleep(pause_seconds(failures))

    async def _listen(self) -> AsyncGenerator[str, None]:
        """What is told, after an empty text for the beginning."""
        import psycopg  # noqa: PLC0415 - as `engines.py` says

        arguments = self._engines.connect_arguments()
        arguments["application_name"] = application_name(self._engines.server_id)
        arguments["cursor_factory"] = psycopg.AsyncClientCursor
        conn = await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
        try:
            await conn.execute(f"LISTEN {CHANNEL}")
            yield ""
            async for notification in conn.notifies():
                yield notification.payload
        finally:
            with contextlib.suppress(psycopg.Error):
                await conn.close()

    def _take(self, news: str) -> None:
        if not news:
            log.info("listener.listens")
            self._missed()
            return
        server_id, _, what = news.partition(":")
        if server_id != self._engines.server_id and what:
            self._heard(what)


def application_name(server_id: str) -> str:
    """The name under which a server that listens is seen."""
    return f"{APPLICATION} {server_id}"


def pause_seconds(failures: int) -> float:
    """How long to wait before the next connection, after so many that broke in a row."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(max(failures - 1, 0), 10), MAX_PAUSE_SECONDS)
