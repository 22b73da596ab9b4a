from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import sprocket
from sprocket.testing import run_job


class Counter(sprocket.Sprocket):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.threads: set[int] = set()

    def setup(self) -> None:
        self.events.append("setup")
        self.threads.add(threading.get_ident())

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        self.events.append("predict")
        self.threads.add(threading.get_ident())
        if "path" in args:
            return {"text": Path(args["path"]).read_text(), "copy": sprocket.FileOutput(args["path"])}
        return args.get("result", {"n": len(self.events)})  # type: ignore[no-any-return]

    def shutdown(self) -> None:
        self.events.append("shutdown")


class AsyncCounter(sprocket.AsyncSprocket):
    async def setup(self) -> None:
        self.loop = asyncio.get_running_loop()

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"same_loop": asyncio.get_running_loop() is self.loop}


class AsyncRequests(sprocket.SprocketWorker):
    async def predict(self, request: sprocket.Request) -> dict[str, Any]:
        if request.json().get("fail"):
            raise KeyError("asked to")
        return request.json()


def test_an_instance_is_set_up_once() -> None:
    worker = Counter()
    run_job(worker, {})
    assert run_job(worker, {}) == {"n": 3}
    assert worker.events == ["setup", "predict", "predict"]
    assert len(worker.threads) == 1


def test_a_class_is_used_and_shut_down() -> None:
    assert run_job(Counter, {}) == {"n": 2}


def test_files_go_in_and_come_out_as_paths(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("hello")
    assert run_job(Counter, {"path": path}) == {"text": "hello", "copy": str(path)}


def test_async_models_keep_their_loop() -> None:
    assert run_job(AsyncCounter, {}) == {"same_loop": True}
    assert run_job(AsyncRequests, {"a": 1}) == {"a": 1}


def test_the_models_own_error_comes_through() -> None:
    with pytest.raises(KeyError, match="asked to"):
        run_job(AsyncRequests, {"fail": True})


class Nan(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"x": float("nan")}


def test_a_bad_return_is_found() -> None:
    with pytest.raises(sprocket.OutputError, match="NaN"):
        run_job(Nan, {})


def test_what_is_no_worker_is_refused() -> None:
    with pytest.raises(sprocket.LoadError, match="is no worker"):
        run_job(object(), {})  # type: ignore[arg-type]
