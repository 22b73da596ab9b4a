"""A Redis of the benchmark's own, for the peers that need one: in memory, on a free port, gone afterwards."""

import shutil
from pathlib import Path

import redis

from harness.errors import BenchmarkError
from harness.processes import Child, accepts_connections, free_port


class RedisServer:
    """A `redis-server` without persistence: the fastest that a peer can run on.

    Args:
        folder: where it logs.
        name: what to call it; each peer has one of its own, so that its memory is that peer's.

    Raises:
        BenchmarkError: it is not installed, or does not start.
    """

    def __init__(self, folder: Path, name: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise BenchmarkError("redis-server is not installed, and the peers need it: apt-get install redis-server")
        self._port = free_port()
        in_memory = ["--save", "", "--appendonly", "no"]
        argv = [program, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(folder), *in_memory]
        self._child = Child(name, argv, folder)
        try:
            self._child.wait_until(lambda: accepts_connections(self._port), "listening", limit_seconds=10)
        except BenchmarkError:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self._port}/0"

    def empty(self) -> None:
        """Forget all that it holds."""
        with redis.Redis(port=self._port) as client:
            client.flushall()

    def process_ids(self) -> list[int]:
        """Its process."""
        return self._child.process_ids()

    def stop(self) -> None:
        """End it; what it held is gone."""
        self._child.stop()
