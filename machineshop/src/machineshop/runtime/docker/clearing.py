"""Removes what ended runs leave on the engine: their containers, and with the last of a project its network."""

import asyncio
import logging

from machineshop.runtime.docker.api import EngineApi, EngineAway, EngineError
from machineshop.runtime.docker.networks import Networks

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 60.0
"""An engine that was away, or that could not remove something, is asked again after a while that doubles up to this."""
CLOSE_SECONDS = 15.0
"""How long a server that ends waits for what is under way."""
SILENT_SECONDS = 1.0
"""An engine that is there removes a container sooner; where it takes longer, people are told what is waited for."""

logger = logging.getLogger(__name__)


class Clearing:
    """The removals under way; what a server does not get done, its next start finds by the labels.

    Args:
        api: The engine.
        networks: Those that the containers are in.
    """

    def __init__(self, api: EngineApi, networks: Networks) -> None:
        self._api, self._networks = api, networks
        self._under_way: set[asyncio.Task[None]] = set()

    def clear(self, container: str, project_id: str | None) -> None:
        """Remove a container, by name or id, from the engine and from the project's network, if it takes hours."""
        task = asyncio.create_task(self._clear(container, project_id))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def remove(self, container: str) -> None:
        """Remove a container of ours with its nameless volumes; one that is gone is let be.

        Raises:
            EngineError: The engine cannot.
            EngineAway: The engine is not there.
        """
        try:
            await self._api.delete(f"/containers/{container}", force=True, v=True)
        except EngineError as error:
            if error.status not in {404, 409}:  # 409: its removal is under way
                raise

    async def close(self) -> None:
        """Wait a while for what is under way, and give the rest up."""
        left = set(self._under_way)
        if left:
            _, left = await asyncio.wait(left, timeout=min(SILENT_SECONDS, CLOSE_SECONDS))
        if left:
            logger.warning(
                "the stop waits for the engine at %s, which has %d containers of ended replicas to remove, for %.0f s "
                "at most; the next start removes what is left",
                self._api.endpoint,
                len(left),
                CLOSE_SECONDS,
            )
            _, left = await asyncio.wait(left, timeout=max(CLOSE_SECONDS - SILENT_SECONDS, 0.0))
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _clear(self, container: str, project_id: str | None) -> None:
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                await self.remove(container)
                if project_id is not None:
                    await self._networks.leave(project_id, container)
            except (EngineError, EngineAway) as error:
                logger.warning("not cleared away: container=%s again_in=%.1f error=%s", container, pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_RETRY_SECONDS)
            else:
                return
