"""The store and the bytes of a data directory, opened for one command: beside a running server, or without it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from machineshop.blobs import Storage
from machineshop.blobs.choice import open_storage
from machineshop.config import default_data_dir
from machineshop.datadir import DataDir
from machineshop.errors import MachineshopError
from machineshop.store.database import Database, sqlite_url
from machineshop.store.schema import migrate

T = TypeVar("T")


class StoreUnreadable(MachineshopError):
    """The store {path} cannot be opened: {cause}. Name the right directory with --data-dir."""


class NoPlatform(MachineshopError):
    """There is no platform's data in {path}. Name the right directory with --data-dir, or start a platform there."""


def on_store(data_dir: Path | None, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work(database)` on the store that a server of this data directory uses.

    Arguments:
        data_dir: None: the usual one.
        work: What to do.

    Raises:
        NoPlatform: No server was ever started with this data directory.
        StoreUnreadable: There is no way to open it.
    """

    async def begun() -> T:
        database.start()
        return await work(database)

    folder = DataDir(data_dir or default_data_dir())
    url = os.environ.get("MACHINESHOP_DATABASE_URL")
    if not url and not folder.database.exists():
        raise NoPlatform(path=folder.path)
    url = url or sqlite_url(folder.database)
    try:
        folder.make_private()
        migrate(url)
    except OSError as error:
        raise StoreUnreadable(path=folder.database, cause=error) from error
    database = Database(url)
    try:
        return asyncio.run(begun())
    finally:
        database.close()


def on_storage(
    data_dir: Path | None,
    storage_dir: Path | None,
    storage_url: str | None,
    work: Callable[[Database, Storage], Awaitable[T]],
) -> T:
    """`on_store` with the bytes too: `work(database, storage)`.

    Arguments:
        data_dir: None: the usual one.
        storage_dir: Where the bytes are, if not in the data directory.
        storage_url: The object storage that they are in.
        work: What to do.

    Raises:
        StoreUnreadable: There is no way to open the store.
    """
    folder = DataDir(data_dir or default_data_dir(), storage_dir)

    async def with_storage(database: Database) -> T:
        storage = open_storage(folder.storage, storage_url)
        try:
            return await work(database, storage)
        finally:
            storage.close()

    return on_store(data_dir, with_storage)
