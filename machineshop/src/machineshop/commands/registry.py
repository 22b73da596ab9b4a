"""`machineshop registry`: look after the registry."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineshop.commands.options import DataDirOption, JsonOption, path_of
from machineshop.config import COLLECT_GRACE_SECONDS
from machineshop.errors import InvalidRequest

if TYPE_CHECKING:
    from machineshop.blobs import Storage
    from machineshop.services.garbage import Collected
    from machineshop.store.database import Database


def gc(
    *,
    grace: float = COLLECT_GRACE_SECONDS / 3600,
    data_dir: DataDirOption = None,
    storage_dir: Path | None = None,
    storage_url: str | None = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what no tag, no revision of a deployment and no push under way needs; a running server does so by itself.

    Args:
        grace: How many hours something must have been unneeded. With 0 all of it goes now: run that while nobody
            pushes.
        storage_dir: Where bytes are kept, if not in the data directory.
        storage_url: The object storage that they are kept in, if any.
    """
    if grace < 0:
        raise InvalidRequest(f"--grace is {grace:g}; it must be 0 or more hours.", param="grace")

    from machineshop.commands.on_store import on_storage  # noqa: PLC0415 - as `commands` says
    from machineshop.services.garbage import GarbageCollector  # noqa: PLC0415 - as `commands` says

    async def collect(database: Database, storage: Storage) -> Collected:
        return await GarbageCollector(database, storage.blobs).collect_all(grace * 3600)

    storage_dir = storage_dir or path_of(os.environ.get("MACHINESHOP_STORAGE_DIR"))
    storage_url = storage_url or os.environ.get("MACHINESHOP_STORAGE_URL") or None
    collected = on_storage(data_dir, storage_dir, storage_url, collect)
    if as_json:
        print(json.dumps(msgspec.to_builtins(collected)))
    else:
        print(
            f"removed {collected.manifests} manifests, {collected.blobs} blobs of repositories, {collected.files} files"
        )
