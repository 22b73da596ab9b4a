"""A Postgres of the tests' own: made in a temporary folder from the machine's binaries, gone afterwards."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import psycopg
import pytest

from ports import reserve_port

START_SECONDS = 60.0


def find_binaries() -> Path | None:
    """Where Postgres 15 or newer is installed, as Debian does it, or on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    candidates = [*([Path(on_path)] if on_path else []), *found]
    return candidates[-1].parent if candidates else None


def make_cluster() -> "PostgresCluster":
    """A running cluster; skips the test where Postgres is not installed, but not in CI."""
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs Postgres: apt-get install postgresql")
        pytest.skip("Postgres is not installed: apt-get install postgresql")
    # Not below pytest's folders, which only their owner may enter.
    cluster = PostgresCluster(binaries, Path(tempfile.mkdtemp(prefix="machineshop-postgres-")))
    cluster.make()
    return cluster


class PostgresCluster:
    """One server; each test gets a database of its own in it."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._data = folder / "data"
        self._user = "postgres" if os.geteuid() == 0 else None
        self.port = reserve_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def admin_url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self._folder / "log"

    def make(self) -> None:
        """Make the cluster and start it."""
        if self._user is not None:  # Postgres refuses to run as root
            shutil.chown(self._folder, self._user)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        self._run("initdb", "--pgdata", str(self._data), *options)
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._folder}",
            "fsync=off",  # tests kill it, but never the machine below it
            "autovacuum=off",  # it would look into each of their databases every minute
        ]
        arguments = [str(self._binaries / "postgres"), "-D", str(self._data)]
        for setting in settings:
            arguments += ["-c", setting]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                arguments, user=self._user, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.admin_url, connect_timeout=2).close()
            except psycopg.OperationalError:
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the server at once, as a crash would: clients are cut off."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(30)
            self._server = None

    def remove(self) -> None:
        """End the server and take everything away."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_database(self, template: str = "template1") -> str:
        """A new database, as empty as its template; returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / command), *arguments],
            user=self._user,
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=120,
        )
