"""`machineshop secrets`: look after the key that secrets are sealed with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineshop.commands.options import DataDirOption, JsonOption, path_of
from machineshop.config import default_data_dir

if TYPE_CHECKING:
    from machineshop.services.secret_rotation import Rotated
    from machineshop.store.database import Database


def rotate(*, data_dir: DataDirOption = None, storage_dir: Path | None = None, as_json: JsonOption = False) -> None:
    """Seal all secrets with a new key, beside running servers; run again, it goes on where it was cut off.

    Args:
        storage_dir: Where bytes are kept, if not in the data directory; the file of the keys is there.
    """
    from machineshop.commands.on_store import on_store  # noqa: PLC0415 - as `commands` says
    from machineshop.datadir import DataDir  # noqa: PLC0415 - as `commands` says
    from machineshop.services.keyring import KeyRing  # noqa: PLC0415 - as `commands` says
    from machineshop.services.secret_rotation import rotate as rotate_key  # noqa: PLC0415 - as `commands` says

    folder = DataDir(data_dir or default_data_dir(), storage_dir or path_of(os.environ.get("MACHINESHOP_STORAGE_DIR")))
    keys = KeyRing(folder.secrets_key, os.environ.get("MACHINESHOP_SECRETS_KEY") or None)

    async def run(database: Database) -> Rotated:
        return await rotate_key(database, keys)

    rotated = on_store(data_dir, run)
    if as_json:
        print(json.dumps(msgspec.to_builtins(rotated)))
        return
    anew = "1 was" if rotated.sealed_anew == 1 else f"{rotated.sealed_anew} were"
    print(f"secrets are sealed with the key {rotated.key_id} now; {anew} sealed anew")
    if keys.is_given:
        print("Take the other keys out of MACHINESHOP_SECRETS_KEY, and start the servers again.")
    else:
        print(f"Back up {folder.secrets_key}.")
