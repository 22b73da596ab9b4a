"""The task in which a connection's requests are answered, one after the other."""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from machineshop.errors import MachineshopError, ServerStopped
from machineshop.http import error_response

log = logging.getLogger(__name__)


async def answer(cycle: RequestResponseCycle, app: Any) -> None:
    """Have a request answered; what nobody foresaw is an answer in the API's form too, as long as none has begun."""
    try:
        await app(cycle.scope, cycle.receive, cycle.send)
        if cycle.response_complete or cycle.disconnected:
            return
        if cycle.response_started:  # the gateway cuts short what a replica did, and has logged why
            cycle.transport.close()
            return
        log.error("http.unanswered method=%s path=%s", cycle.scope["method"], cycle.scope["path"])
        error = MachineshopError()
    except asyncio.CancelledError:
        log.info("http.cut_off method=%s path=%s", cycle.scope["method"], cycle.scope["path"])
        error = ServerStopped()
    except Exception:
        log.exception("http.defect method=%s path=%s", cycle.scope["method"], cycle.scope["path"])
        error = MachineshopError()
    if cycle.response_started:
        cycle.transport.close()  # the caller sees that it is not whole
        return
    response: Any = error_response(error)  # starlette and uvicorn name the same types differently
    response.headers["Connection"] = "close"
    await response(cycle.scope, cycle.receive, cycle.send)


class Answering:
    """That of one connection. uvicorn makes one for each request, which costs as much as many an answer.

    Args:
        loop: The connection's.
        tasks: Those that are at work: a server that stops waits for them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: "set[asyncio.Task[None]]") -> None:
        self._loop = loop
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[tuple[RequestResponseCycle, Any]] | None = None
        self._ended = False

    def take(self, cycle: RequestResponseCycle, app: Any) -> bool:
        """Answer a request; whether it can: it may still have something to do for one that has its answer."""
        if self._task is None:
            self._task = self._loop.create_task(self._run(cycle, app))
        elif self._next is not None:
            waiting, self._next = self._next, None
            waiting.set_result((cycle, app))
        else:
            return False
        self._tasks.add(self._task)
        return True

    def end(self) -> None:
        """No request comes any more."""
        self._ended = True
        if self._next is not None:
            self._next.cancel()

    async def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        while True:
            await answer(cycle, app)
            if self._task is not None:
                self._tasks.discard(self._task)
            if self._ended:
                return
            self._next = self._loop.create_future()
            cycle, app = await self._next
