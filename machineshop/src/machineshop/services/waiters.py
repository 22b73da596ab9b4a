"""The workers that wait for a job, in the order in which they came."""

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

from machineshop.models import Claim, Worker

Answer = Callable[[list[Claim]], bool]
"""Sends a worker its claims; whether it could."""


class Handed(NamedTuple):
    """What a worker has waited for."""

    claims: list[Claim]
    answered: bool
    """Whether they are on their way to it already."""


class Waiter:
    """A worker that waits for jobs of one deployment, until it is handed claims or sent home with none.

    Args:
        worker: Who waits.
        max_jobs: How many it takes.
        answer: Called as soon as there are claims: before whoever waits here wakes up, which takes its time.
    """

    __slots__ = ("answer", "claims", "handed", "max_jobs", "worker")

    def __init__(self, worker: Worker, max_jobs: int, answer: Answer | None = None) -> None:
        self.worker = worker
        self.max_jobs = max_jobs
        self.answer = answer
        self.claims: list[Claim] = []
        self.handed: asyncio.Future[Handed] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        """Whether it waits no longer."""
        return self.handed.done()

    def hand(self, claims: list[Claim]) -> None:
        """End the wait with these."""
        self.claims = claims
        answered = False
        if self.answer is not None:
            # An answer that cannot be made is told to who waits, where it is made again: not to whose job came in.
            with contextlib.suppress(Exception):
                answered = self.answer(claims)
        self.handed.set_result(Handed(claims, answered))

    def send_home(self, *_why: object) -> None:
        """End the wait with nothing."""
        if not self.gone:
            self.handed.set_result(_NOTHING)


_NOTHING = Handed([], answered=False)


class Waiters:
    """All of them, by deployment."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, deque[Waiter]] = defaultdict(deque)
        # How often a job of a deployment became pending: tells a worker that was just about to wait to look again.
        self._arrivals: dict[str, int] = {}

    def arrivals(self, deployment_id: str) -> int:
        """How often a job of this deployment became pending."""
        return self._arrivals.get(deployment_id, 0)

    def arrived(self, deployment_id: str) -> None:
        """A job has become pending."""
        self._arrivals[deployment_id] = self.arrivals(deployment_id) + 1

    def add(self, deployment_id: str, waiter: Waiter) -> None:
        """Let one wait behind the others."""
        self._lines[deployment_id].append(waiter)

    def put_back(self, deployment_id: str, waiter: Waiter) -> None:
        """Let one that got nothing wait again before the others."""
        self._lines[deployment_id].appendleft(waiter)

    def next(self, deployment_id: str) -> Waiter | None:
        """The one that has waited longest; it waits no longer."""
        line = self._lines.get(deployment_id)
        while line:
            waiter = line.popleft()
            if not waiter.gone:
                return waiter
        return None

    def forget(self, deployment_id: str, waiter: Waiter) -> None:
        """Take one out that went away by itself."""
        line = self._lines.get(deployment_id)
        if line is not None and waiter in line:
            line.remove(waiter)

    def count(self, deployment_id: str) -> int:
        """How many wait."""
        return len(self._lines.get(deployment_id, ()))

    def deployments(self) -> list[str]:
        """The deployments for whose jobs somebody waits."""
        return [deployment_id for deployment_id, line in self._lines.items() if line]

    def send_home(self, replica_id: str) -> None:
        """End the waits of one replica."""
        for line in list(self._lines.values()):
            for waiter in list(line):
                if waiter.worker.replica_id == replica_id:
                    waiter.send_home()

    def send_all_home(self) -> None:
        """End every wait."""
        for line in list(self._lines.values()):
            for waiter in list(line):
                waiter.send_home()
