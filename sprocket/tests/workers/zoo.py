"""Models for the tests: the payload's `do` says how predict is to behave."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import sprocket


class Zoo(sprocket.Sprocket):
    def setup(self) -> None:
        self.thread = threading.get_ident()

    def predict(self, args: dict[str, Any]) -> Any:
        assert threading.get_ident() == self.thread
        return getattr(self, args.get("do", "echo"))(args)

    def shutdown(self) -> None:
        print("shutdown", "same thread" if threading.get_ident() == self.thread else "another thread")

    def echo(self, args: dict[str, Any]) -> Any:
        return args

    def sleep(self, args: dict[str, Any]) -> Any:
        time.sleep(args["seconds"])
        return {"slept": args["seconds"]}

    def end_forks(self, args: dict[str, Any]) -> Any:
        children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(20)]
        for child in children:
            child.start()
            child.terminate()
        for child in children:
            child.join(30)
        return {"exit_codes": sorted({child.exitcode for child in children}, key=str)}

    def spin_until_there(self, args: dict[str, Any]) -> Any:
        while not Path(args["path"]).exists():
            for _ in range(100_000):  # a look at the disk lets others have Python's global lock
                pass
        return {"there": True}

    def raise_(self, args: dict[str, Any]) -> Any:
        raise ValueError("no such " + "x" * args.get("size", 4))

    def none(self, args: dict[str, Any]) -> Any:
        return None

    def text(self, args: dict[str, Any]) -> Any:
        return "just text"

    def nan(self, args: dict[str, Any]) -> Any:
        return {"scores": [1.0, float("nan")]}

    def object(self, args: dict[str, Any]) -> Any:
        return {"thing": {"deep": [object()]}}

    def exit(self, args: dict[str, Any]) -> Any:
        sys.exit(args["code"])

    def vanish(self, args: dict[str, Any]) -> Any:
        os._exit(args["code"])

    def until_cancelled(self, args: dict[str, Any]) -> Any:
        sprocket.emit_info({"step": "waiting"})
        while not sprocket.cancelled():
            time.sleep(0.01)
        print("cancel seen")
        return {"late": True}

    def news(self, args: dict[str, Any]) -> Any:
        def from_thread() -> None:
            sprocket.emit_info({"thread": True})

        sprocket.emit_info({"a": 1, "step": "one"})
        helper = threading.Thread(target=from_thread)
        helper.start()
        helper.join()
        sprocket.emit_info({"step": "two"})
        sprocket.log.info("half way")
        if "path" in args:
            self.until_there(args)
        sprocket.emit_info({"last": "words"})
        return {}

    def big_news(self, args: dict[str, Any]) -> Any:
        sprocket.emit_info({"text": "x" * 4096})
        return {}

    def read(self, args: dict[str, Any]) -> Any:
        path = Path(args["file"])
        return {
            "name": path.name,
            "content": path.read_text(),
            "is_temporary": str(path).startswith(tempfile.gettempdir()),
        }

    def size(self, args: dict[str, Any]) -> Any:
        return {"bytes": Path(args["file"]).stat().st_size}

    def write(self, args: dict[str, Any]) -> Any:
        path = Path(args["path"])
        path.write_text(args["content"])
        return {"file": sprocket.FileOutput(path), "note": "kept"}

    def missing_file(self, args: dict[str, Any]) -> Any:
        return {"file": sprocket.FileOutput("/nowhere/at/all.png")}

    def nested_files(self, args: dict[str, Any]) -> Any:
        root = Path(args["root"])
        for name in ("a", "b"):
            (root / name).mkdir()
            (root / name / "out.txt").write_text(f"in {name}")
        first, second = (sprocket.FileOutput(root / name / "out.txt") for name in ("a", "b"))
        return {"scenes": [{"take": first}, {"take": second}], "best": first}

    def huge(self, args: dict[str, Any]) -> Any:
        return {"text": "x" * 100_000_000}

    def until_there(self, args: dict[str, Any]) -> Any:
        while not Path(args["path"]).exists():
            time.sleep(0.01)
        return {"there": True}

    def pids(self, args: dict[str, Any]) -> Any:
        return {"model": os.getpid(), "worker": os.getppid()}

    def hold_the_lock(self, args: dict[str, Any]) -> Any:
        with Path(args["until"]).open("rb") as pipe:
            sprocket.emit_info({"step": "holding"})
            _hold_the_lock(pipe.fileno())
        return {"held": True}

    def dereference_null(self, args: dict[str, Any]) -> Any:
        ctypes.string_at(0)

    def fill_memory(self, args: dict[str, Any]) -> Any:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (8 * 1024**3, hard))
        try:
            return {"bytes": len(bytearray(16 * 1024**3))}
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def leave_a_child(self, args: dict[str, Any]) -> Any:
        left = subprocess.Popen(["sleep", "600"])
        if args.get("then") == "hold_the_lock":
            sprocket.emit_info({"child": left.pid, "model": os.getpid()})
            _hold_the_lock(os.pipe()[0])
        return {"child": left.pid}

    def wait_for_gate(self, args: dict[str, Any]) -> Any:
        gate = threading.Event()
        sprocket.on_cancel(lambda: print("undone first"))
        sprocket.on_cancel(lambda: 1 / 0)
        sprocket.on_cancel(gate.set)
        sprocket.on_cancel(lambda: sprocket.log.info("told to stop: %s", sprocket.cancelled()))
        sprocket.emit_info({"step": "waiting"})
        gate.wait(60)
        return {}

    def register_and_end(self, args: dict[str, Any]) -> Any:
        sprocket.on_cancel(lambda: print("undone too late"))
        return {}

    def close_outputs(self, args: dict[str, Any]) -> Any:
        os.close(1)
        os.close(2)
        return {"closed": True}

    def close_everything(self, args: dict[str, Any]) -> Any:
        os.closerange(3, 1024)
        return {"closed": True}


def _hold_the_lock(pipe: int) -> None:
    """Wait in C for something to read; PyDLL, unlike CDLL, keeps Python's global lock meanwhile."""
    ctypes.PyDLL(None).read(pipe, ctypes.create_string_buffer(1), 1)


class AsyncZoo(sprocket.AsyncSprocket):
    async def setup(self) -> None:
        await asyncio.sleep(0)
        self.loop = asyncio.get_running_loop()

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        assert asyncio.get_running_loop() is self.loop
        if args.get("do") == "block":
            time.sleep(args["seconds"])  # noqa: ASYNC251 - what a careless model does
        elif args.get("do") == "wait":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("cancelled in await")
                raise
        elif args.get("do") == "raise":
            raise KeyError("nothing")
        return args

    async def shutdown(self) -> None:
        await asyncio.sleep(0)
        print("async shutdown")


class Apart(Zoo):
    process = True


class Limited(Zoo):
    time_limit_seconds = 1.0


class AsyncLimited(AsyncZoo):
    time_limit_seconds = 1.0


class Requests(sprocket.SprocketWorker):
    def predict(self, request: sprocket.Request) -> dict[str, Any]:
        return {
            "input": request.json(),
            "id": request.id,
            "priority": request.priority,
            "info": request.info,
            "header": request.headers.get("x-colour"),
        }


class SlowSetup(sprocket.Sprocket):
    def setup(self) -> None:
        print("setting up slowly")
        time.sleep(60)

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


class GatedSetup(Zoo):
    def setup(self) -> None:
        super().setup()
        while not Path(os.environ["GATE"]).exists():
            time.sleep(0.01)


class BrokenSetup(sprocket.Sprocket):
    def setup(self) -> None:
        raise RuntimeError("no weights at /models")

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


class NoWorker:
    pass


instance = Zoo()
