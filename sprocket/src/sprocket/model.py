"""The three kinds of workers behind one shape, and the check that something is one of them."""

from __future__ import annotations

import inspect
from typing import Any, cast

from .batches import Batches
from .errors import ConfigError, LoadError
from .generators import drain, drain_async
from .inputs import Inputs, inputs_of
from .job import Job
from .signature import Form, Signature, signature_of_batch, signature_of_predict
from .warmup import warming_up, warmup_jobs
from .worker import AsyncSprocket, Request, Sprocket, SprocketWorker, Worker

CONCURRENCY_LIMIT = 1000
"""More is no sensible number of threads, and a loop with more tasks wants further processes beside it."""

PREDICT_BATCH = "predict_batch"

KINDS = (Sprocket, AsyncSprocket, SprocketWorker)


class Model:
    """A worker's class or instance, called in one way whatever its kind.

    A class is instantiated by `setup`, so that its `__init__` too runs in the model's thread.

    Args:
        worker: the class or instance.
        warmup_rounds: how often `setup` runs the warm-up inputs.
        warmup_required: having none is a mistake.
        use_torchrun: whether it runs in ranks; None: as its class says.

    Raises:
        LoadError: it is no worker.
        ConfigError: its `concurrency` is no number of jobs, a flag is no bool, its `time_limit_seconds` is no time,
            it is to run in ranks and cannot, or its typed parameters cannot be read.

    Attributes:
        cls: the worker's class.
        signature: how its predict is called.
        inputs: what its predict takes.
        method: its predict, or predict_batch.
        batches: it predicts several jobs together.
        streams: its predict is a generator.
    """

    def __init__(
        self,
        worker: Worker | type[Worker],
        *,
        warmup_rounds: int = 0,
        warmup_required: bool = False,
        use_torchrun: bool | None = None,
    ) -> None:
        self._worker = worker
        self._warmup_rounds = warmup_rounds
        self._warmup_required = warmup_required
        self.cls = check_worker(worker)
        self.name = self.cls.__name__
        self.method = getattr(self.cls, PREDICT_BATCH, self.cls.predict)
        self.batches = hasattr(self.cls, PREDICT_BATCH)
        self.signature = _signature_of(self.cls)
        self.inputs: Inputs = inputs_of(self.signature)
        self.concurrency = _concurrency_of(worker, self.name)
        if self.batches:
            size, wait_seconds = _batch_of(worker, self.name)
            self.concurrency = max(self.concurrency, size)
            self._batches = Batches(size, wait_seconds, self._predict_batch)
        self.process = _flag_of(worker, "process", "a process of the model's own")
        self.use_torchrun = _use_torchrun_of(worker, use_torchrun)
        self.time_limit_seconds = _time_limit_of(worker, self.name)
        self.streams = inspect.isgeneratorfunction(self.cls.predict) or inspect.isasyncgenfunction(self.cls.predict)
        self.is_async = (
            self.batches
            or issubclass(self.cls, AsyncSprocket)
            or inspect.isasyncgenfunction(self.cls.predict)
            or any(inspect.iscoroutinefunction(getattr(self.cls, name)) for name in ("setup", "predict", "shutdown"))
        )

    def setup(self) -> Any:
        """Make the instance where a class was given, set it up, and warm it up."""
        if isinstance(self._worker, type):
            self._worker = self._worker()
        if self.is_async:
            return self._set_up_async()
        self._worker.setup()
        for job in self._warmup_jobs():
            with warming_up(job):
                self.predict(job)
        return None

    async def _set_up_async(self) -> None:
        await awaited(cast("Worker", self._worker).setup())
        for job in self._warmup_jobs():
            with warming_up(job):
                await awaited(self.predict(job))

    def _warmup_jobs(self) -> list[Job]:
        if not self._warmup_rounds:
            return []
        worker = cast("Worker", self._worker)
        return warmup_jobs(worker, self._warmup_rounds, required=self._warmup_required)

    def predict(self, job: Job) -> Any:
        """Call predict with what this kind of worker takes; one that streams is run to its end."""
        if self.batches:
            return self._batches.predict(job, self._item(job))
        value = self._call(job)
        if inspect.isgenerator(value):
            return drain(job, value)
        return drain_async(job, value) if inspect.isasyncgen(value) else value

    def _call(self, job: Job) -> Any:
        worker: Any = self._worker
        return self.inputs.call(worker.predict, self._item(job))

    def _predict_batch(self, items: list[Any]) -> Any:
        return cast("Any", self._worker).predict_batch(items)

    def _item(self, job: Job) -> Any:
        """Give what predict gets of a job."""
        if issubclass(self.cls, SprocketWorker):
            return Request(job.payload, id=job.id, priority=job.priority, info=job.info, headers=job.headers)
        return self.inputs.bind(job.payload)

    def shutdown(self) -> Any:
        """Shut the worker down."""
        return cast("Worker", self._worker).shutdown()


def check_worker(worker: object) -> type[Worker]:
    """Give the worker's class.

    Raises:
        LoadError: it is no worker, or one that cannot predict.
    """
    cls = worker if isinstance(worker, type) else type(worker)
    if not issubclass(cls, KINDS):
        what = f"the class {cls.__name__}" if isinstance(worker, type) else f"an object of type {cls.__name__}"
        raise LoadError(f"{what} is no worker: derive it from sprocket.Sprocket, AsyncSprocket or SprocketWorker")
    has_predict = all(cls.predict is not kind.predict for kind in KINDS)
    if has_predict == hasattr(cls, PREDICT_BATCH):
        raise LoadError(
            f"{cls.__name__} has both predict and predict_batch; it must have one of them"
            if has_predict
            else f"{cls.__name__} has no predict method"
        )
    return cls


async def awaited(value: Any) -> Any:
    """Give what a method returned, once it is there, whether the method was a `def` or an `async def`."""
    return await value if inspect.isawaitable(value) else value


def _signature_of(cls: type[Worker]) -> Signature:
    if issubclass(cls, SprocketWorker):
        return Signature(f"{cls.__name__}.predict", Form.PLAIN)  # It takes the request, and looks at it by itself.
    return signature_of_batch(cls) if hasattr(cls, PREDICT_BATCH) else signature_of_predict(cls)


def _batch_of(worker: Worker | type[Worker], name: str) -> tuple[int, float]:
    """Give how large a batch is at most, and for how long it waits to become that."""
    size: object = worker.batch_size
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= CONCURRENCY_LIMIT:
        raise ConfigError(f"{name}.batch_size must be a whole number from 1 to {CONCURRENCY_LIMIT}, not {size!r}")
    wait: object = worker.batch_wait_seconds
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < float("inf"):
        raise ConfigError(f"{name}.batch_wait_seconds must be a number of seconds from 0 on, not {wait!r}")
    method = getattr(check_worker(worker), PREDICT_BATCH)
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise ConfigError(f"{name}.predict_batch must return a list; only predict can stream")
    return size, float(wait)


def _concurrency_of(worker: Worker | type[Worker], name: str) -> int:
    given: object = worker.concurrency
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= CONCURRENCY_LIMIT:
        raise ConfigError(
            f"{name}.concurrency must be a whole number from 1 to {CONCURRENCY_LIMIT} "
            f"(how many jobs the worker has in hand at once), not {given!r}"
        )
    return given


def _flag_of(worker: Worker | type[Worker], flag: str, meaning: str) -> bool:
    given: object = getattr(worker, flag)
    if not isinstance(given, bool):
        name = check_worker(worker).__name__
        raise ConfigError(f"{name}.{flag} must be True or False ({meaning}), not {given!r}")
    return given


def _use_torchrun_of(worker: Worker | type[Worker], told: bool | None) -> bool:
    """Whether the model runs in ranks, as `run` was told or else as its class says."""
    own = _flag_of(worker, "use_torchrun", "a process per GPU")
    if not (own if told is None else told):
        return False
    cls = check_worker(worker)
    if inspect.iscoroutinefunction(cls.predict) or inspect.isasyncgenfunction(cls.predict):
        raise ConfigError(f"{cls.__name__}.predict must be a plain def: with use_torchrun, ranks work in step")
    if hasattr(cls, PREDICT_BATCH):
        raise ConfigError(f"{cls.__name__} has predict_batch: with use_torchrun, ranks work on one job at a time")
    if worker.concurrency != 1:
        raise ConfigError(f"{cls.__name__}.concurrency must be 1: with use_torchrun, ranks work on one job at a time")
    return True


def _time_limit_of(worker: Worker | type[Worker], name: str) -> float | None:
    given: object = worker.time_limit_seconds
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < float("inf"):
        raise ConfigError(f"{name}.time_limit_seconds must be a number above 0, or None for no limit, not {given!r}")
    return float(given)
