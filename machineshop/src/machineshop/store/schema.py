"""Brings a database to the schema of this version, and says so when a newer version has been there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import NullPool

from machineshop.errors import StoreUnavailable


def migrate(url: str) -> None:
    """Apply the migrations that the database lacks, all or none.

    Raises:
        StoreUnavailable: A newer version of the platform made this database.
    """
    engine = create_engine(url, poolclass=NullPool, connect_args={"isolation_level": None} if _sqlite(url) else {})
    if _sqlite(url):
        event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as conn:
        _refuse_newer(conn)
        command.upgrade(config(conn), "head")
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


def _sqlite(url: str) -> bool:
    return url.startswith("sqlite")
