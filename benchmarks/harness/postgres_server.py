"""A Postgres of the benchmark's own: a new cluster with its default settings, on a free port, gone afterwards."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from harness.errors import BenchmarkError
from harness.processes import Child, free_port

MAKE_LIMIT_SECONDS = 60.0


class PostgresServer:
    """A cluster that puts every commit on disk before it answers, as Postgres does unless told otherwise.

    Args:
        folder: where its own folder goes; others must be able to enter it, because Postgres refuses to run as root.
        name: what to call it.

    Raises:
        BenchmarkError: it is not installed, or does not start.
    """

    def __init__(self, folder: Path, name: str) -> None:
        binaries = _binaries()
        self._port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        home = folder / name
        home.mkdir()
        if self._user is not None:
            shutil.chown(home, self._user)
        data = home / "data"
        self._make_cluster(binaries, data)
        settings = [f"port={self._port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={home}"]
        argv = [str(binaries / "postgres"), "-D", str(data), *(word for line in settings for word in ("-c", line))]
        self._child = Child(name, argv, folder, user=self._user)
        try:
            self._child.wait_until(self._answers, "answering")
        except BenchmarkError:
            self.stop()
            raise

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def make_database(self, name: str) -> None:
        """Make an empty database, in the place of the one of that name if there is one."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')

    def process_ids(self) -> list[int]:
        """Its processes, one for each connection and a few of its own."""
        return self._child.process_ids()

    def stop(self) -> None:
        """End it at once; what it held is gone."""
        self._child.stop(signal.SIGINT)

    def _make_cluster(self, binaries: Path, data: Path) -> None:
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        argv = [str(binaries / "initdb"), "--pgdata", str(data), *options]
        try:
            subprocess.run(
                argv,
                user=self._user,
                cwd=data.parent,
                capture_output=True,
                text=True,
                timeout=MAKE_LIMIT_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise BenchmarkError(f"initdb ended with {error.returncode}: {error.stderr}") from error

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            return True
        return False


def _binaries() -> Path:
    """Where Debian puts the newest Postgres, or the PATH's."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = [*versions, *([Path(on_path)] if (on_path := shutil.which("initdb")) else [])]
    if not found:
        raise BenchmarkError("Postgres is not installed, and the durable peer needs it: apt-get install postgresql")
    return found[-1].parent
