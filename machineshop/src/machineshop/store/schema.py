"""Brings a database to the schema of this version, and says so when a newer version has been there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.pool import NullPool

from machineshop.errors import StoreUnavailable
from machineshop.store.engines import is_sqlite, with_driver

# A number of our own among the advisory locks of a database.
MIGRATION_LOCK = 0x6D73_6D69


def migrate(url: str) -> None:
    """Apply the migrations that the database lacks, all or none.

    Raises:
        StoreUnavailable: It cannot be opened, or a newer version of the platform made it.
    """
    sqlite = is_sqlite(url)
    try:
        options = {"isolation_level": None} if sqlite else {}
        engine = create_engine(with_driver(url), poolclass=NullPool, connect_args=options)
    except (ArgumentError, ValueError) as error:  # the text of either may hold the password
        raise StoreUnavailable(
            "The database URL cannot be understood; it must look like postgresql://user:password@host:5432/name "
            "or sqlite:////path/to/file."
        ) from error
    if sqlite:
        event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as conn:
            if not sqlite:  # servers that start at once migrate one after the other
                conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            _refuse_newer(conn)
            command.upgrade(config(conn), "head")
    except DatabaseError as error:
        raise StoreUnavailable(f"The database cannot be reached or opened: {error.orig}".strip()) from error
    finally:
        engine.dispose()


def config(conn: Connection) -> Config:
    """Alembic's settings for one connection."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = conn
    return settings


def _refuse_newer(conn: Connection) -> None:
    current = MigrationContext.configure(conn).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config(conn)).walk_revisions()}
    if current is not None and current not in known:
        raise StoreUnavailable(
            f"The database has the schema '{current}', which this version does not know: "
            "a newer machineshop has used it. Upgrade machineshop, or use another data directory."
        )
