"""Models that work on several jobs at once; the payload's `do` says how predict is to behave."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

import sprocket


class Quartet(sprocket.Sprocket):
    """Four threads."""

    concurrency = 4

    def setup(self) -> None:
        print("setup")
        self.thread = threading.get_ident()
        self.meeting = threading.Barrier(4)

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        match args.get("do"):
            case "meet":
                self.meeting.wait(10)
            case "sleep":
                time.sleep(args["seconds"])
            case "hold":
                while not Path(args["until"]).exists():
                    time.sleep(0.01)
            case "until_cancelled":
                sprocket.emit_info({"waits": args["name"]})
                while not sprocket.cancelled():
                    time.sleep(0.01)
                print("cancel seen by", args["name"])
            case "write":
                Path(args["path"]).write_text("x")
                return {"file": sprocket.FileOutput(args["path"])}
            case "exit":
                sys.exit(args["code"])
        return args

    def shutdown(self) -> None:
        print("shutdown", "same thread" if threading.get_ident() == self.thread else "another thread")


class AsyncQuartet(sprocket.AsyncSprocket):
    """Four tasks on one loop."""

    concurrency = 4

    async def setup(self) -> None:
        print("setup")
        self.met = asyncio.Event()
        self.here = 0

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        match args.get("do"):
            case "meet":
                self.here += 1
                if self.here == 4:
                    self.met.set()
                await asyncio.wait_for(self.met.wait(), 60)
            case "sleep":
                await asyncio.sleep(args["seconds"])
            case "hold":
                while not Path(args["until"]).exists():  # noqa: ASYNC240 - as a model would
                    await asyncio.sleep(0.01)
            case "until_cancelled":
                sprocket.emit_info({"waits": args["name"]})
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    print("cancel seen by", args["name"])
                    raise
            case "write":
                Path(args["path"]).write_text("x")  # noqa: ASYNC240 - as a model would
                return {"file": sprocket.FileOutput(args["path"])}
            case "exit":
                sys.exit(args["code"])
        return args

    async def shutdown(self) -> None:
        print("shutdown same thread")


class Crowd(sprocket.Sprocket):
    concurrency = 32

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"seen": args["n"]}


class AsyncCrowd(sprocket.AsyncSprocket):
    concurrency = 32

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        if args["n"] % 3:
            await asyncio.sleep(0)
        return {"seen": args["n"]}


class Nobody(sprocket.Sprocket):
    concurrency = 0

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args
