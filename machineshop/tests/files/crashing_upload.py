"""A process that takes a file in, or clears files away, and is killed at the worst moment."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from machineshop.blobs import Storage
from machineshop.blobs.local import LocalBlobs
from machineshop.blobs.uploads import LocalUpload
from machineshop.services.files import FileService
from machineshop.store.database import Database

# Where it is killed: after this step, by name.
STEPS: dict[str, tuple[type, str]] = {
    "received": (LocalUpload, "append"),
    "published": (LocalBlobs, "publish"),
    "stored": (FileService, "_store"),
    "deleted": (LocalBlobs, "delete"),
}


def _kill_after(owner: type, name: str) -> None:
    step: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def step_and_die(*args: Any) -> None:
        await step(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, step_and_die)


def _kill_before_blobs_of_gone_jobs() -> None:
    async def die(*_args: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(LocalBlobs, "delete", die)  # noqa: B010 - the types of a method that never returns


async def _content() -> AsyncIterator[bytes]:
    yield b"content"


async def _main(url: str, folder: str, moment: str, upload: dict[str, Any] | None) -> None:
    database, storage = Database(url), Storage(Path(folder))
    database.start()
    service = FileService(database, storage, lambda: "http://nowhere")
    if moment in STEPS:
        _kill_after(*STEPS[moment])
    else:
        _kill_before_blobs_of_gone_jobs()
    if upload is not None:
        await service.receive(upload["project_id"], upload["name"], upload["query"], _content())
    else:
        await service.clean(time.time())
    raise SystemExit(f"was not killed: {moment}")


if __name__ == "__main__":
    _, given_url, given_folder, given_moment, given_upload = sys.argv
    asyncio.run(_main(given_url, given_folder, given_moment, json.loads(given_upload)))
