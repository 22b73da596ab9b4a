"""The workers that wait for a job, in the order in which they came."""

import asyncio
from collections import defaultdict, deque

from machineshop.models import Claim, Worker


class Waiter:
    """A worker that waits for jobs of one deployment, until it is handed claims or sent home with none."""

    __slots__ = ("handed", "max_jobs", "worker")

    def __init__(self, worker: Worker, max_jobs: int) -> None:
        self.worker = worker
        self.max_jobs = max_jobs
        self.handed: asyncio.Future[list[Claim]] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        """Whether it waits no longer."""
        return self.handed.done()

    def send_home(self, *_why: object) -> None:
        """End the wait with nothing."""
        if not self.gone:
            self.handed.set_result([])


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
