"""What a model author derives from: Sprocket, AsyncSprocket, SprocketWorker; and the Request that the last one gets."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from .processor import InputOutputProcessor


class Settings:
    """What every kind of model may set, as attributes of its class.

    Attributes:
        concurrency: how many jobs the worker has in hand at once, 1 to 1000. A `predict` that is a `def` runs in
            that many threads at a time, and must be safe for that; one that is an `async def` in as many tasks of one
            event loop. `setup` and `shutdown` still run once.
        warmup_inputs: payloads that go through `predict` when `setup` is through, before any job does; a list of dicts,
            or a property that gives one. A file among them is a local path: nothing is downloaded.
        nested_inputs: whether files are fetched also for addresses inside of lists and objects of the payload.
        batch_size: how many jobs are predicted together at most, where there is a `predict_batch(self, batch) -> list`
            in place of `predict`. `concurrency` is at least that.
        batch_wait_seconds: how long the first job of a batch waits for others to come.
        processor: what changes input files and outputs on their way, a class derived from `InputOutputProcessor`.
        process: whether the model gets a process of its own, so that nothing it does keeps the worker from answering.
        use_torchrun: whether the model runs in a process per GPU, all of which run `setup` and every `predict`.
        time_limit_seconds: how long one `predict` may take; then it is told to stop, as by a cancel, and the job fails.
            None: as long as it likes.
    """

    concurrency: int = 1
    batch_size: int = 8
    batch_wait_seconds: float = 0.01
    warmup_inputs: Sequence[dict[str, Any]] = ()
    nested_inputs: bool = False
    processor: type[InputOutputProcessor] = InputOutputProcessor
    process: bool = False
    use_torchrun: bool = False
    time_limit_seconds: float | None = None


class Sprocket(Settings):
    """A model with a plain, synchronous `predict`.

    `setup`, every `predict` and `shutdown` run in one and the same thread, which belongs to the model alone: what is
    bound to a thread (a CUDA context, a database connection) stays valid from the first call to the last. Health,
    heartbeats and cancels are served from another thread, so `predict` may block for as long as it needs. `Settings`
    describes what its class may set.

    Example:
        class Upper(sprocket.Sprocket):
            def predict(self, args):
                return {"text": args["text"].upper()}
    """

    def setup(self) -> None:
        """Load the model. Called once, before the first `predict`.

        Raises:
            Exception: anything raised here ends the process with exit code 1 and a traceback on stderr.
        """

    # Any parameters, for a type checker: which ones it has is up to its author.
    def predict(self, *args: Any, **fields: Any) -> Any:
        """Answer one request.

        Declared as `predict(self, args)` or `predict(self, args: dict)` it gets the payload as it is. With annotated
        parameters, as in `predict(self, prompt: str, steps: int = 30)` or `predict(self, args: MyInput)`, it gets typed
        inputs, and is not called with what does not fit; that takes `sprocket[typed]`.

        Args:
            args: the job's payload, a dict. Top-level strings (with `nested_inputs` all strings) that were `https://`
                addresses or files in the platform's storage are paths of local files by now, removed when the job ends.
            fields: or the payload's fields, as declared.

        Returns:
            The outputs: a JSON object, as a dict, a pydantic model or a dataclass. A `FileOutput` anywhere in it is
            uploaded and replaced by its address.

        Raises:
            Exception: anything raised here fails this job; the worker goes on with the next.
        """
        raise NotImplementedError

    def shutdown(self) -> None:
        """Let go of what `setup` took. Called once, after the last `predict`, when the worker is asked to stop."""


class AsyncSprocket(Settings):
    """A model with an `async def predict`.

    It runs on an event loop of its own in the model's thread: a predict that blocks delays nobody's health check.
    A cancelled job is seen as `asyncio.CancelledError` at the next `await`.
    """

    def setup(self) -> Awaitable[None] | None:
        """Load the model; may be `def` or `async def`. See `Sprocket.setup`."""
        return None

    # An `async def`, declared so that an asynchronous generator may stand in for it.
    def predict(self, *args: Any, **fields: Any) -> Any:
        """Answer one request. See `Sprocket.predict` for the argument, the result and errors.

        Raises:
            asyncio.CancelledError: thrown in by sprocket when the job is cancelled or taken away; let it through.
        """
        raise NotImplementedError

    def shutdown(self) -> Awaitable[None] | None:
        """Let go of what `setup` took; may be `def` or `async def`. See `Sprocket.shutdown`."""
        return None


class SprocketWorker(Settings):
    """A model whose `predict` gets the whole request: input, id, priority, info and headers.

    Its methods may be `def` or `async def`. Started with `python -m sprocket module:Class`.
    """

    def setup(self) -> Awaitable[None] | None:
        """Load the model. See `Sprocket.setup`."""
        return None

    def predict(self, request: Request) -> Any:
        """Answer one request.

        Args:
            request: the request; `request.json()` is its input.

        Returns:
            The outputs, a JSON object (`dict`), as for `Sprocket.predict`.

        Raises:
            Exception: anything raised here fails this job; the worker goes on with the next.
        """
        raise NotImplementedError

    def shutdown(self) -> Awaitable[None] | None:
        """Let go of what `setup` took. See `Sprocket.shutdown`."""
        return None


class Request:
    """One request to a `SprocketWorker`.

    Attributes:
        id: the job's id, or the one from `X-Request-ID` (else a new one) over HTTP.
        priority: the job's priority; higher is served first, 0 over HTTP.
        info: what the submitter and earlier attempts noted about the job; empty over HTTP.
        headers: the HTTP request's headers with lower-case names; empty for a job from the queue.
    """

    __slots__ = ("_payload", "headers", "id", "info", "priority")

    def __init__(
        self,
        payload: dict[str, Any],
        *,
        id: str = "",  # noqa: A002 - the attribute's public name
        priority: int = 0,
        info: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._payload = payload
        self.id = id
        self.priority = priority
        self.info = dict(info or {})
        self.headers = dict(headers or {})

    def json(self) -> dict[str, Any]:
        """Give the input: the job's payload, with files as local paths (see `Sprocket.predict`)."""
        return self._payload


Worker = Sprocket | AsyncSprocket | SprocketWorker
"""Any kind of model that sprocket can serve."""
