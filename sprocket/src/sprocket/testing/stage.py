"""One job of a model in a thread, without a queue, a platform and a process: `run_job`."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sprocket.job import Job, active
from sprocket.model import Model
from sprocket.outputs import encode_outputs
from sprocket.worker import Worker

_ATTRIBUTE = "_sprocket_testing_stage"


def run_job(worker: Worker | type[Worker], payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job and give its outputs.

    A class is instantiated, set up, used once and shut down. An instance is set up by its first job and keeps what it
    has loaded for the next ones. As in a real worker, everything runs in one thread of the model's own.

    Args:
        worker: the model.
        payload: the job's input. Files are given as local paths (`str` or `Path`); nothing is downloaded.

    Returns:
        The outputs as the submitter would get them, with a `FileOutput` as its local path (`str`).

    Raises:
        LoadError: `worker` is no worker.
        OutputError: predict returned what a job cannot return.
        Exception: whatever setup or predict raised.
    """
    stage: _Stage | None = getattr(worker, _ATTRIBUTE, None) if not isinstance(worker, type) else None
    if stage is None:
        stage = _Stage(Model(worker))
        stage.call(stage.model.setup)
        if not isinstance(worker, type):
            setattr(worker, _ATTRIBUTE, stage)
    try:
        return stage.predict(payload)
    finally:
        if isinstance(worker, type):
            stage.call(stage.model.shutdown)
            stage.close()


class _Stage:
    """One model in a thread of its own."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sprocket-model")
        self._loop = asyncio.new_event_loop() if model.is_async else None

    def call(self, method: Callable[[], Any]) -> Any:
        return self._thread.submit(self._in_thread, method).result()

    def predict(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        as_json = {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in payload.items()
        }
        job = Job("test", json.loads(json.dumps(as_json)))

        def predict() -> Any:
            with active(job):
                return self._finish(self.model.predict(job))

        outputs = encode_outputs(self.call(predict))
        found: dict[str, Any] = json.loads(outputs.text({file: str(file) for file in outputs.files}))
        return found

    def close(self) -> None:
        self._thread.shutdown()
        if self._loop is not None:
            self._loop.close()

    def _in_thread(self, method: Callable[[], Any]) -> Any:
        return self._finish(method())

    def _finish(self, value: Any) -> Any:
        if not inspect.isawaitable(value):
            return value
        if self._loop is None:
            raise TypeError("a method returned something to await, but is not declared `async def`")

        async def wait() -> Any:
            return await value

        return self._loop.run_until_complete(wait())
