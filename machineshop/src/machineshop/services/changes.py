"""Who wants to know when a job changes: those who follow one job, and those who follow a whole queue."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Changes:
    """Wakes followers. What has changed they read for themselves, so nothing is lost when changes come quickly."""

    def __init__(self) -> None:
        self._followers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closed = False
        # How often anybody was told anything: what was read since the last time is still new.
        self.told = 0

    @contextmanager
    def followed(self, deployment_id: str, job_id: str | None = None) -> Iterator[asyncio.Event]:
        """An event that is set whenever the job, or any job of the queue, may have changed; the follower clears it."""
        event = asyncio.Event()
        # A job's followers are woken by what concerns its queue as a whole, too.
        names = [deployment_id] if job_id is None else [job_id, f"all:{deployment_id}"]
        for name in names:
            self._followers[name].add(event)
        try:
            yield event
        finally:
            for name in names:
                self._followers[name].discard(event)
                if not self._followers[name]:
                    del self._followers[name]

    def tell(self, deployment_id: str, job_ids: Iterable[str] | None = None) -> None:
        """These jobs of a queue have changed; None: it is not known which."""
        self.told += 1
        if not self._followers:
            return
        names = [f"all:{deployment_id}"] if job_ids is None else list(job_ids)
        for name in [deployment_id, *names]:
            for event in self._followers.get(name, ()):
                event.set()

    def followed_queues(self) -> set[str]:
        """The deployments that somebody follows."""
        return {name.removeprefix("all:") for name in self._followers}

    def close(self) -> None:
        """The server is about to end: have everybody look, and see that."""
        self.closed = True
        self.wake_all()

    def wake_all(self) -> None:
        """Have everybody look: anything may have changed."""
        self.told += 1
        for followers in list(self._followers.values()):
            for event in followers:
                event.set()
