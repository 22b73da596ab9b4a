"""Brings a database to the schema of this version, and says so when a newer version has been there.

Alembic takes a while to load, and nearly every start finds the newest schema: it is loaded only where a migration is to
be applied. The name of a migration's file begins with its revision; the highest one is the newest.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.pool import NullPool

from machineshop.errors import StoreUnavailable
from machineshop.store.engines import is_sqlite, postgres_arguments, with_driver

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"

# A number of our own among the advisory locks of a database.
MIGRATION_LOCK = 0x6D73_6D69
# How long to wait for another server that migrates, or that uses a table which has to change.
LOCK_SECONDS = 60
# What SQLite's log and the index of it need to begin with.
SQLITE_ROOM_BYTES = 1024 * 1024


def migrate(url: str) -> None:
    """Apply the migrations that the database lacks, all or none.

    Raises:
        StoreUnavailable: It cannot be opened, or a newer version of the platform made it.
    """
    sqlite = is_sqlite(url)
    engine = _engine(url)
    try:
        with engine.begin() as conn:
            if not sqlite:  # servers that start at once migrate one after the other
                conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                conn.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{LOCK_SECONDS}s'")
                conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            current, known = current_revision(conn), known_revisions()
            _refuse_newer(current, known)
            if current != known[-1]:
                _upgrade(conn)
    except DatabaseError as error:
        raise _unreachable(error, engine.url.database if sqlite else None) from error
    finally:
        engine.dispose()


def postgres_version(url: str) -> int:
    """The major version of a Postgres.

    Raises:
        StoreUnavailable: It does not answer.
    """
    engine = _engine(url)
    try:
        with engine.connect() as conn:
            return int(conn.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
    except DatabaseError as error:
        raise _unreachable(error) from error
    finally:
        engine.dispose()


def known_revisions() -> list[str]:
    """Those that this version has, the newest one last."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def current_revision(conn: Connection) -> str | None:
    """That of a database; None where it has none yet."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    revision: str | None = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def config(conn: Connection) -> Config:
    """Alembic's settings for one connection."""
    from alembic.config import Config  # noqa: PLC0415 - as above

    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = conn
    return settings


def _engine(url: str) -> Engine:
    """Connections of one transaction each, without the limits of a server's."""
    sqlite = is_sqlite(url)
    try:
        location = make_url(with_driver(url))
        options = {"isolation_level": None} if sqlite else postgres_arguments(location)
        engine = create_engine(location, poolclass=NullPool, connect_args=options)
    except (ArgumentError, ValueError) as error:  # the text of either may hold the password
        raise StoreUnavailable(
            "The database URL cannot be understood; it must look like postgresql://user:password@host:5432/name "
            "or sqlite:////path/to/file."
        ) from error
    if sqlite:
        event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _unreachable(error: DatabaseError, file: str | None = None) -> StoreUnavailable:
    message = f"The database cannot be reached or opened: {str(error.orig).strip().splitlines()[0]}"
    if file and shutil.disk_usage(Path(file).parent).free < SQLITE_ROOM_BYTES:  # where SQLite says it in other words
        message += f". The disk of {file} is full: make room on it."
    return StoreUnavailable(message)


def _refuse_newer(current: str | None, known: list[str]) -> None:
    if current is not None and current not in known:
        raise StoreUnavailable(
            f"The database has the schema '{current}', which this version does not know: "
            "a newer machineshop has used it. Upgrade machineshop, or use another data directory."
        )


def _upgrade(conn: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - as above

    command.upgrade(config(conn), "head")
