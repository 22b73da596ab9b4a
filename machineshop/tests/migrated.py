"""Databases as the migrations leave them: made once and copied, because migrations take longer than most tests.

A copy of a Postgres takes longer than most tests too: one that a test has used is emptied for the next.
"""

import functools
import tempfile
from pathlib import Path

import psycopg
import pytest

from machineshop.store.database import sqlite_url
from machineshop.store.schema import migrate
from postgres_cluster import PostgresCluster


def migrated_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new database without rows, `sqlite` or `postgres`."""
    if kind == "sqlite":
        return migrated_sqlite(folder)
    databases = _postgres_databases(request.getfixturevalue("postgres"))
    url = databases.take()
    request.addfinalizer(lambda: databases.give_back(url))
    return url


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
def _postgres_databases(cluster: PostgresCluster) -> "PostgresDatabases":
    return PostgresDatabases(cluster)


# What is in the schema, by numbers that are the same in all copies of a database and are never used again.
_SCHEMA = """
SELECT array_agg(found ORDER BY found) FROM (
    SELECT format('%s %s', oid, relname) AS found FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s', oid, conname) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s', oid, tgname) FROM pg_trigger
    UNION ALL SELECT format('%s %s', oid, proname) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s %s %s', attrelid, attname, atttypid, attnotnull) FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace
) AS everything
"""
# The tables that have had rows, as nothing vacuums them, and how many bytes the largest of them has.
_USED = """
SELECT array_agg(relname), max(pg_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
"""
_CUT_OFF = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_RESTART = "SELECT setval(seqrelid, seqstart, false) FROM pg_sequence"
_VERSION = "alembic_version"
# What is deleted stays in the file: a database of which one has grown so far is not used again.
_MOST_BYTES = 1024 * 1024


class PostgresDatabases:
    """Those of one cluster, without rows; tests have them one after the other."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self._cluster = cluster
        template = cluster.create_database()
        migrate(template)
        with psycopg.connect(template) as conn:
            self._schema = conn.execute(_SCHEMA).fetchone()
            ((used, _),) = conn.execute(_USED).fetchall()
            assert used == [_VERSION], "a migration leaves rows, which are to be put back"
        self._template = template.rsplit("/", 1)[1]
        self._free: list[str] = []

    def take(self) -> str:
        """The URL of one."""
        return self._free.pop() if self._free else self._cluster.create_database(self._template)

    def give_back(self, url: str) -> None:
        """Empty one for the next test; one that cannot be as it was is left alone."""
        try:
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("SET lock_timeout = '10s'")
                conn.execute(_CUT_OFF)
                ((used, largest_bytes),) = conn.execute(_USED).fetchall()
                if largest_bytes > _MOST_BYTES or conn.execute(_SCHEMA).fetchone() != self._schema:
                    return
                # As a replica: the order does not matter then, nor what refers to what.
                delete = [f"DELETE FROM {name}" for name in used if name != _VERSION]
                conn.execute("; ".join(["SET session_replication_role = replica", *delete, _RESTART]))
        except psycopg.OperationalError:  # its test has ended the cluster
            return
        self._free.append(url)
