"""One job as the model sees it: its payload, whether it is cancelled, and the news it sends about itself.

The main thread makes jobs and cancels them; the model's thread, and any thread that the model starts, reads them and
adds info. Which job is meant is found through a context variable, or is plain where only one job runs.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

from .accord import Accord
from .chunks import NO_CHUNKS, Batch, Chunks
from .errors import InfoError
from .measures import Measures

_lock = threading.Lock()
"""Held while a job's news, or what is to be undone, changes hands: one for all, as most jobs have neither."""

INFO_LIMIT_BYTES = 4096
"""What one `emit_info` may carry, as JSON; bigger news belongs in the outputs."""


class Job:
    """One request on its way through this worker, from the queue or over HTTP.

    Attributes:
        id: the request's id.
        payload: the input; files in it are local paths once they have been fetched.
        priority: higher is served first.
        info: what was noted about the job before this attempt.
        headers: HTTP headers, lower-case names; empty for a job from the queue.
        queued: it comes from the queue, where its files belong; over HTTP they travel in the answer.
        attempt_token: what proves that the job is this worker's; None over HTTP, and where the platform gives none.
        keeps_outputs: what predict returns is not to be encoded yet, since a processor finishes it.
        cancel_requested: somebody wants this job stopped.
        cancel_seen: the model has asked `cancelled()` and was told so.
        accord: where several ranks work on the job, this one's part in taking up a cancel at the same step.
        follows: another rank's result is the job's; what predict returns in this one is not looked at.
        overran: it has been told to stop since it took longer than it may.
        over: how its predict ended is known, or that it has to be reported without one.
        keeps_chunks: whoever takes them wants all of them again at the end, as the outputs.
        measures: what it has taken so far.
    """

    # What most jobs never have is made when it is needed: hundreds of them may begin in one moment.
    keeps_outputs = False
    cancel_requested = False
    cancel_seen = False
    accord: Accord | None = None
    follows = False
    overran = False
    over = False
    keeps_chunks = True
    on_info: Callable[[Job], None] | None = None
    """Told, in the emitting thread, that there is info, or a chunk, to send."""
    _interrupt: Callable[[], object] | None = None
    _chunks: Chunks | None = None
    _undoing: tuple[Callable[[], object], ...] = ()

    def __init__(
        self,
        job_id: str,
        payload: dict[str, Any],
        *,
        priority: int = 0,
        info: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        queued: bool = False,
        attempt_token: str | None = None,
    ) -> None:
        self.id = job_id
        self.payload = payload
        self.priority = priority
        self.info = dict(info) if info else {}
        self.headers = dict(headers) if headers else {}
        self.queued = queued
        self.attempt_token = attempt_token
        self.measures = Measures()
        self._heard_at = time.monotonic()
        self._news: dict[str, Any] = {}

    def cancel(self) -> None:
        """Ask the model to stop; called in the main thread, more than once is fine."""
        if self.cancel_requested:
            return
        self.cancel_requested = True
        if self._interrupt is not None:
            self._interrupt()
        self.undo()

    def see_cancel(self) -> bool:
        """Tell the model whether it is to stop; from then on it knows."""
        if not (self.accord.says_cancelled() if self.accord else self.cancel_requested):
            return False
        self.cancel_seen = True
        return True

    def listen(self, interrupt: Callable[[], object] | None) -> None:
        """Have a cancel call `interrupt` from now on, also one that has come already; None: nothing."""
        self._interrupt = interrupt
        if interrupt is not None and self.cancel_requested:
            interrupt()

    def interruptible(self, interrupt: Callable[[], object]) -> _Interruptible:
        """For the time of a block, let a cancel call `interrupt` (in the main thread)."""
        return _Interruptible(self, interrupt)

    def undo_with(self, undo: Callable[[], object]) -> None:
        """Have a cancel call `undo` in a thread of its own, also one that has come already."""
        with _lock:
            self._undoing += (undo,)
        if self.cancel_requested or (self.accord is not None and self.accord.settled):
            self.undo()

    def forget_undoing(self) -> None:
        """Call none of it any more: predict has ended."""
        if self._undoing:
            with _lock:
                self._undoing = ()

    def undo(self) -> None:
        """Call, in a thread of its own, what has been registered for a cancel, once."""
        with _lock:
            undoing, self._undoing = self._undoing, ()
        if undoing:
            threading.Thread(target=_undo_all, args=(undoing,), name="sprocket-cancel", daemon=True).start()

    @property
    def tag(self) -> dict[str, str]:
        """What `extra=` takes for a log line about this job from outside of its predict."""
        return {"job_id": self.id}

    def touch(self) -> None:
        """Note that the model has just been heard of."""
        self._heard_at = time.monotonic()

    def progress_age_seconds(self) -> float:
        """Give the time since predict started or last emitted info."""
        return time.monotonic() - self._heard_at

    def add_info(self, news: dict[str, Any]) -> None:
        """Merge `news` into what the next heartbeat carries."""
        self.touch()
        with _lock:
            self._news.update(news)
        self._tell()

    def add_chunks(self, texts: list[str]) -> None:
        """Add to what the model has given of its outputs, each as JSON text."""
        self.touch()
        self.chunks.add(texts)
        self._tell()

    @property
    def chunks(self) -> Chunks:
        """What a streaming model has given that nobody has taken yet."""
        if self._chunks is None:
            with _lock:
                if self._chunks is None:
                    self._chunks = Chunks()
        return self._chunks

    @property
    def has_chunks(self) -> bool:
        """Whether there is a chunk that has not been sent."""
        return self._chunks is not None and bool(self._chunks)

    @property
    def has_news(self) -> bool:
        """Whether there is info, or a chunk, that has not been sent."""
        return bool(self._news) or self.has_chunks

    def take_news(self) -> dict[str, Any]:
        """Take what is to be sent."""
        if not self._news:
            return {}
        with _lock:
            news, self._news = self._news, {}
        return news

    def take_chunks(self) -> Batch:
        """Take the chunks that are to go next."""
        return NO_CHUNKS if self._chunks is None else self._chunks.take()

    def put_back_news(self, news: dict[str, Any]) -> None:
        """Return what could not be sent; what has been emitted since then wins."""
        if news:
            with _lock:
                self._news = {**news, **self._news}

    def _tell(self) -> None:
        on_info = self.on_info
        if on_info is not None:
            on_info(self)


class _Interruptible:
    """`with job.interruptible(...)`. A class: a generator would cost every job another microsecond or two."""

    def __init__(self, job: Job, interrupt: Callable[[], object]) -> None:
        self._job = job
        self._interrupt = interrupt

    def __enter__(self) -> None:
        self._job.listen(self._interrupt)

    def __exit__(self, *_: object) -> None:
        self._job.listen(None)


_current: ContextVar[Job | None] = ContextVar("sprocket_job", default=None)
_active: set[Job] = set()


class active:  # noqa: N801 - reads as what it is: `with active(job):`
    """Make a job the current one of this thread or task, for the time of its predict."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        self._token = _current.set(self._job)
        _active.add(self._job)
        self._job.touch()

    def __exit__(self, *_: object) -> None:
        _active.discard(self._job)
        self._job.forget_undoing()
        _current.reset(self._token)


def current_job() -> Job | None:
    """Find the job that the caller works for; None outside of a predict.

    A thread that the model started itself has no context of ours: while only one job runs, it can only be that one.
    """
    job = _current.get()
    if job is not None:
        return job
    running = tuple(_active)
    return running[0] if len(running) == 1 else None


def on_cancel(undo: Callable[[], object]) -> None:
    """Have something called as soon as the current job is to stop: `sprocket.on_cancel(process.kill)`.

    It is for what predict waits for and cannot ask `cancelled()` meanwhile: a process, a request, a lock. It is called
    at most once, when the job is cancelled, overruns its time limit or is taken away from this worker; at once where
    that has happened already; and not at all once predict has ended. The one registered last goes first. All of them
    run in a thread of sprocket's own while predict goes on, so they must be safe for that. May be called from any
    thread; outside of a predict it does nothing.

    Args:
        undo: takes nothing; what it returns is ignored, what it raises is logged.
    """
    job = current_job()
    if job is not None:
        context = copy_context()  # With the job in it, so that log lines carry its id.
        job.undo_with(lambda: context.copy().run(undo))


def _undo_all(undoing: Sequence[Callable[[], object]]) -> None:
    for undo in reversed(undoing):
        try:
            undo()
        except Exception:  # noqa: PERF203 - the others are called all the same
            logging.getLogger("sprocket").exception("what was registered with on_cancel failed")


def emit_info(info: dict[str, Any]) -> None:
    """Tell the job's submitter how it goes: `sprocket.emit_info({"progress": 0.4, "step": "decoding"})`.

    The keys are merged into the job's `info`, which `status` shows while the job runs and afterwards. What is emitted
    in quick succession travels together, at most 200 ms later. May be called from any thread. Outside of a predict, and
    over HTTP, there is nobody to tell, and the call does nothing.

    Args:
        info: a JSON object of less than 4096 bytes. `error`, `traceback` and `sprocket` are set by sprocket.

    Raises:
        InfoError: `info` is not a dict, not JSON, or too large.
    """
    if not isinstance(info, dict):
        raise InfoError(f"emit_info takes a dict, not {type(info).__name__}")
    try:
        size_bytes = len(json.dumps(info, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InfoError(f"emit_info takes JSON values only: {error}") from None
    if size_bytes >= INFO_LIMIT_BYTES:
        raise InfoError(
            f"emit_info takes less than {INFO_LIMIT_BYTES} bytes of JSON, this is {size_bytes}; "
            "return large values as outputs"
        )
    job = current_job()
    if job is not None:
        job.add_info(info)


def cancelled() -> bool:
    """Whether the current job is to stop: it was cancelled, or the platform has taken it away from this worker.

    Meant for a synchronous `predict`: ask now and then, and return or raise when it says True. What predict returns
    after that is thrown away, and the job is reported as canceled. News of a cancel reaches the worker within about
    2 s. In an `async def predict` the same comes as `asyncio.CancelledError` by itself.

    Returns:
        True once the job is to stop; False otherwise, and outside of a predict.
    """
    job = current_job()
    return job is not None and job.see_cancel()
