"""Workers whose predict streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import sprocket
from sprocket import event_stream


class Counting(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> Generator[Any, None, Any]:
        try:
            for number in range(args["chunks"]):
                yield {"n": number}
                if args.get("info"):
                    sprocket.emit_info({"at": number})
                time.sleep(args.get("pause", 0))
            if args.get("gate"):
                while not Path(args["gate"]).exists() and not sprocket.cancelled():
                    time.sleep(0.01)
                yield {"n": "after the gate"}
            if args.get("fail"):
                raise ValueError("in the middle")
            if args.get("odd"):
                yield object()
        except GeneratorExit:
            print("generator closed", flush=True)
            raise
        return args.get("outputs")


class Endless(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> Generator[Any, None, None]:
        try:
            number = 0
            while True:
                yield "x" * args.get("size", 1)
                number += 1
                time.sleep(args.get("pause", 0.01))
        finally:
            print("generator closed", flush=True)


class AsyncCounting(sprocket.AsyncSprocket):
    async def predict(self, prompt: str, times: int = 3, forever: bool = False) -> AsyncIterator[Any]:
        try:
            for number in range(times):
                yield f"{prompt}{number}"
            while forever:
                yield "more"
                await asyncio.sleep(0.01)
        except (GeneratorExit, asyncio.CancelledError) as error:
            print("ended by", type(error).__name__, flush=True)
            raise


class Busy(sprocket.AsyncSprocket):
    """Never waits for anything."""

    concurrency = 2

    async def predict(self, args: dict[str, Any]) -> AsyncIterator[int]:
        for number in range(args["chunks"]):
            yield number


class Impatient(Counting):
    """Has its streams say sooner that they are alive."""

    def setup(self) -> None:
        event_stream.KEEP_ALIVE_SECONDS = 0.05
