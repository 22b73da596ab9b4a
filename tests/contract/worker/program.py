"""What a worker under the protocol suite does, in each of sprocket's forms. Another SDK's would do the same.

`setup` waits until the file that SETUP_GATE names is there, if it names one. A job's payload says in `do`:

- `echo`: give the payload back.
- `wait`: emit the info `{"step": "waiting"}`, and wait until the file `until` is there, or the job is cancelled; give
  `{"waited": true}`.
- `raise`: fail with the text "no such page".
- `crash`: read from address 0, as native code may, so that the process ends by SIGSEGV.
"""

import asyncio
import ctypes
import os
import time
from pathlib import Path
from typing import Any

import sprocket


class Sync(sprocket.Sprocket):
    def setup(self) -> None:
        while not gate_is_open():
            time.sleep(0.005)

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        if args["do"] == "wait":
            return self.wait(Path(args["until"]))
        return at_once(args)

    def wait(self, until: Path) -> dict[str, Any]:
        sprocket.emit_info({"step": "waiting"})
        while not is_there(until) and not sprocket.cancelled():
            time.sleep(0.005)
        return {"waited": True}


class Async(sprocket.AsyncSprocket):
    async def setup(self) -> None:
        while not gate_is_open():
            await asyncio.sleep(0.005)

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        if args["do"] == "wait":
            return await self.wait(Path(args["until"]))
        return at_once(args)

    async def wait(self, until: Path) -> dict[str, Any]:
        sprocket.emit_info({"step": "waiting"})
        while not is_there(until):
            await asyncio.sleep(0.005)
        return {"waited": True}


class Process(Sync):
    process = True


class Ranks(Sync):
    use_torchrun = True


def gate_is_open() -> bool:
    """Whether setup may end."""
    gate = os.environ.get("SETUP_GATE")
    return gate is None or is_there(Path(gate))


def is_there(path: Path) -> bool:
    """Whether a file has been made."""
    return path.exists()


def at_once(args: dict[str, Any]) -> dict[str, Any]:
    """What needs no waiting."""
    if args["do"] == "raise":
        raise ValueError("no such page")
    if args["do"] == "crash":
        ctypes.string_at(0)
    return args
