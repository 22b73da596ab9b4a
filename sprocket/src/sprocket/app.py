"""One worker process from its start to its end: the composition root.

The main thread runs the event loop with the server and the queue's loop; the model lives in the engine's threads, or
in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from . import forks
from .child import this_command
from .config import Config
from .consumer import Consumer
from .engine import STUCK_EXIT_CODE, Engine, threads_for
from .files import Files
from .logs import log
from .metrics import Metrics
from .model import Model
from .openapi import document
from .platform import Platform
from .predict import Patience
from .process import ModelProcess
from .ranks import Ranks
from .server import Health, Server
from .workbench import Workbench

RELEASE_SECONDS = 2.0
"""For handing jobs back when the process has to end now."""


def grace_margin_seconds(grace_period_seconds: float) -> float:
    """What is kept of the grace period for releasing jobs and closing down."""
    return min(5.0, grace_period_seconds / 5)


@dataclass(frozen=True)
class Ending:
    """How the process is to end.

    Attributes:
        exit_code: of the process.
        abrupt: the model's thread is still at work and will not be waited for.
        error: what setup or shutdown raised, where that is why.
    """

    exit_code: int
    abrupt: bool = False
    error: BaseException | None = None


class Stop:
    """What ends a worker, a signal as a rule: the first asks for a drain, the second for an end at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        self.asked_at = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for the time of the block."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._take, number)
        forks.take(signals)
        try:
            yield
        finally:
            forks.let_go(signals)
            for number in signals:
                loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals) -> None:
        log.info("%s received%s", number.name, ": ending at once" if self.asked.is_set() else "")
        self.ask()

    def ask(self) -> None:
        """Ask for the end, as a signal does."""
        if self.asked.is_set():
            self.insisted.set()
        else:
            self.asked_at = time.monotonic()
            self.asked.set()


class App:
    """Runs one model until it is asked to stop.

    Attributes:
        port: where it listens; 0 until it does.
        ready: set once setup is over.
    """

    def __init__(self, config: Config, model: Model, stop: Stop) -> None:
        self.port = 0
        self.ready = asyncio.Event()
        self._config = config
        self._model = model
        self._stop = stop
        self._metrics = Metrics()
        self._platform = Platform(config.platform) if config.platform else None
        self._engine = _engine_for(config, model)
        self._files = Files(config, self._platform, model.inputs, model.cls)
        patience = Patience(model.time_limit_seconds, config.cancel_grace_seconds)
        self._workbench = Workbench(self._engine, patience, self._files, self._metrics)
        self._server = Server(
            self._workbench, self._metrics, config.predict_path, lambda: document(model, config.predict_path)
        )
        self._consumer: Consumer | None = None
        if config.queue and self._platform is not None:
            self._consumer = Consumer(self._platform, self._workbench, self._metrics)

    async def run(self) -> Ending:
        """Live: bind the port, set up, serve, drain.

        Raises:
            ConfigError: the port cannot be bound.
        """
        try:
            self.port = await self._server.start(self._config.port)
            name = f"{self._model.name} {self._config.version}".rstrip()
            log.info("%s is listening on port %d, setting up", name, self.port)
            return await self._set_up() or await self._serve() or await self._drain()
        finally:
            await self._close()

    async def _set_up(self) -> Ending | None:
        """Give an ending where there is nothing to serve with."""
        started_at = time.monotonic()
        setup = asyncio.ensure_future(self._workbench.start())
        if await _first(setup, self._stop.asked.wait()) is not setup:
            return Ending(0, abrupt=True)
        fault = setup.result()
        if fault is not None:
            log.error("%s", fault.text)
            return Ending(fault.exit_code, error=fault.error)
        seconds = time.monotonic() - started_at
        if self._config.warmup_rounds_and_exit:
            log.info("%s is warmed up after %.1f s, and ends as RUN_AND_EXIT says", self._model.name, seconds)
            self._stop.ask()
            return None
        log.info("%s is ready after %.1f s", self._model.name, seconds)
        self._server.health = Health.HEALTHY
        self.ready.set()
        return None

    async def _serve(self) -> Ending | None:
        """Work until asked to stop (None) or until a predict ends the process."""
        consuming = [self._consumer.start()] if self._consumer else []
        await _first(self._stop.asked.wait(), asyncio.shield(self._workbench.exited), *consuming)
        return await self._exited()

    async def _drain(self) -> Ending:
        self._server.health = Health.DRAINING
        time_left_seconds = self._config.grace_period_seconds - grace_margin_seconds(self._config.grace_period_seconds)
        if self._consumer is not None:
            self._consumer.drain()
        finishing = asyncio.ensure_future(self._finish())
        await _first(
            finishing, self._stop.insisted.wait(), asyncio.shield(self._workbench.exited), timeout=time_left_seconds
        )
        ending = await self._exited()
        if ending is not None:
            return ending
        if not finishing.done() or finishing.cancelled():
            if self._consumer is not None:
                await self._consumer.release(RELEASE_SECONDS)
            return Ending(0, abrupt=True)
        return await self._shut_down()

    async def _finish(self) -> None:
        if self._consumer is not None:
            await self._consumer.finished()
        await self._server.drained()

    async def _shut_down(self) -> Ending:
        left_seconds = self._stop.asked_at + self._config.grace_period_seconds - time.monotonic()
        stopping = asyncio.ensure_future(self._workbench.stop())
        if await _first(stopping, self._stop.insisted.wait(), timeout=max(left_seconds, 0.1)) is not stopping:
            log.error("shutdown() did not end in time")
            return Ending(0, abrupt=True)
        fault = stopping.result()
        if fault is not None:
            log.error("%s", fault.text)
            return Ending(1, error=fault.error)
        log.info("drained")
        return Ending(0)

    async def _exited(self) -> Ending | None:
        if not self._workbench.exited.done():
            return None
        if self._consumer is not None:
            self._consumer.drain()
            await self._consumer.release(RELEASE_SECONDS)
        code = self._workbench.exited.result()
        return Ending(code, abrupt=code == STUCK_EXIT_CODE)

    async def _close(self) -> None:
        await self._server.close()
        await self._engine.close()
        await self._files.close()
        if self._platform is not None:
            await self._platform.close()


def _engine_for(config: Config, model: Model) -> Engine:
    """Choose where the model lives: the environment's word counts more than the model's own."""
    if model.use_torchrun:
        return Ranks(model, this_command(), config.ranks, config.rank_timeout_seconds)
    in_process = model.process if config.process is None else config.process
    return ModelProcess(model, this_command()) if in_process else threads_for(model)


async def _first(*waits: Any, timeout: float | None = None) -> asyncio.Future[Any] | None:
    """Wait for the first of several; give it, or None after the timeout. Bare coroutines are cancelled afterwards."""
    futures = {asyncio.ensure_future(wait): isinstance(wait, Coroutine) for wait in waits}
    done, _ = await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for future, ours in futures.items():
        if ours:
            future.cancel()
    return next((future for future in futures if future in done), None)
