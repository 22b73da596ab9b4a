"""The inside of a model's process: runs the model as the worker would in its threads, and tells the worker what comes.

The main thread listens; the model's threads tell by themselves. The worker's side of this is `process.py`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from . import forks
from .accord import Accord
from .engine import threads_for
from .frames import Frames, Message, encode_message
from .job import Job
from .logs import log
from .measures import peak_memory
from .model import Model
from .model_messages import fields_of_fault, fields_of_outcome, job_of_fields
from .outcome import Fault, Outcome

RECEIVE_BYTES = 256 * 1024


def host(channel: socket.socket, model: Model, rank: int | None) -> NoReturn:
    """Run the model for the worker at the other end of the channel, until that wants no more.

    Args:
        channel: where the worker is.
        model: the model.
        rank: its rank, where it runs in several.

    Raises:
        SystemExit: always.
    """
    if not faulthandler.is_enabled():
        with contextlib.suppress(ValueError, OSError, RuntimeError):  # There is no stderr.
            faulthandler.enable()  # A crash in native code shows where Python was.
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        # Meant for the worker, which lets the model finish. Not ignored: whatever the model starts would ignore them.
        signal.signal(number, lambda *_: None)
    forks.take(signals)
    _Host(channel, model, rank).run()
    sys.exit()


class _Host:
    """One model in this process."""

    def __init__(self, channel: socket.socket, model: Model, rank: int | None) -> None:
        self._channel = channel
        self._rank = rank
        self._engine = threads_for(model)
        self._jobs: dict[int, Job] = {}
        self._speaking = threading.Lock()

    def run(self) -> None:
        """Serve until the worker has hung up."""
        self._engine.start(self._ready, on_exit=lambda _: None)
        for message in self._messages():
            self._take(message.fields)

    def _messages(self) -> Iterator[Message]:
        frames = Frames()
        while data := self._channel.recv(RECEIVE_BYTES):
            yield from frames.feed(data)

    def _take(self, fields: dict[str, Any]) -> None:
        match fields["do"]:
            case "predict":
                self._predict(fields["number"], job_of_fields(fields["job"]))
            case "interrupt":
                if job := self._jobs.get(fields["number"]):
                    job.cancel()
            case "hold":
                if (job := self._jobs.get(fields["number"])) and job.accord:
                    self._say({"say": "held", "number": fields["number"], "calls": job.accord.hold()})
            case "settle":
                if (job := self._jobs.get(fields["number"])) and job.accord:
                    job.accord.settle(fields["first"])
                    job.undo()
            case "stop":
                self._engine.stop(self._stopped)

    def _predict(self, number: int, job: Job) -> None:
        def tell_news(job: Job) -> None:
            while job.has_news:
                texts = job.chunks.take().texts
                self._say({"say": "news", "number": number, "info": job.take_news(), "chunks": texts})

        def tell_outcome(outcome: Outcome) -> None:
            self._jobs.pop(number, None)
            fields, tail = fields_of_outcome(outcome)
            self._say({"say": "outcome", "number": number, "outcome": fields, "memory": peak_memory()}, tail)

        self._jobs[number] = job
        if self._rank is not None:
            job.accord, job.follows = Accord(), self._rank > 0
            if job.follows:
                job.chunks.refuse()
        job.on_info = tell_news
        self._engine.predict(job, tell_outcome)
        job.listen(lambda: self._engine.interrupt(job))

    def _ready(self, fault: Fault | None) -> None:
        self._say({"say": "ready", "fault": fields_of_fault(fault)})

    def _stopped(self, fault: Fault | None) -> None:
        self._say({"say": "stopped", "fault": fields_of_fault(fault)})

    def _say(self, fields: dict[str, Any], tail: bytes = b"") -> None:
        message = encode_message(fields, tail)
        try:
            with self._speaking:
                self._channel.sendall(message)
        except OSError as error:
            # Either the worker is gone, or the model has closed what is not its own. Nobody would ever hear of it.
            log.critical("the model's process ends: it cannot reach its worker (%s)", error)
            os._exit(1)
