"""Databases as the migrations leave them: made once and copied, because migrations take longer than most tests."""

import functools
import tempfile
from pathlib import Path

import pytest

from machineshop.store.database import sqlite_url
from machineshop.store.schema import migrate
from postgres_cluster import PostgresCluster


def migrated_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new database without rows, `sqlite` or `postgres`."""
    if kind == "sqlite":
        return migrated_sqlite(folder)
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return cluster.create_database(_postgres_template(cluster))


def migrated_sqlite(folder: Path) -> str:
    """The URL of `machineshop.db` in a folder: a database without rows, unless the file is there."""
    path = folder / "machineshop.db"
    if not path.exists():
        path.write_bytes(_sqlite_template())
    return sqlite_url(path)


@functools.cache
def _sqlite_template() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "machineshop.db")
        migrate(sqlite_url(path))
        return path.read_bytes()


@functools.cache
def _postgres_template(cluster: PostgresCluster) -> str:
    url = cluster.create_database()
    migrate(url)
    return url.rsplit("/", 1)[1]
