"""Models with processors, in the shapes that authors write."""

from __future__ import annotations

import asyncio
import gzip
import pathlib
import sys
import threading
import time
from pathlib import Path
from typing import Any

import sprocket


class Video:
    """What no JSON encoder knows."""

    def __init__(self, frames: int) -> None:
        self.frames = frames


class Unpacking(sprocket.InputOutputProcessor):
    def process_input_file(self, resp: Any, dst: pathlib.Path) -> None:
        if dst.suffix == ".gz":
            dst.write_bytes(gzip.decompress(resp.content))
        else:
            super().process_input_file(resp, dst)

    async def finalize(self, request_id: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        video = outputs.pop("video")
        outputs["frames"] = video.frames if isinstance(video, Video) else video
        outputs["for"] = [request_id, Path(inputs["file"]).name]
        return outputs


class Unpacked(sprocket.Sprocket):
    processor = Unpacking

    def setup(self) -> None:
        self.made = Path(__file__)
        self.processor = object()  # type: ignore[assignment] # as authors do whose model has a processor too

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        path = Path(args["file"])
        beside = sorted(other.name for other in path.parents[1].rglob("*") if other.is_file())
        return {"video": Video(3), "content": path.read_text(), "files": beside}


class UnpackedApart(Unpacked):
    process = True

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return {**super().predict(args), "video": 3}


class Streaming(sprocket.InputOutputProcessor):
    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.loop = asyncio.get_running_loop()

    async def process_input_file(self, resp: sprocket.FileResponse, dst: Path) -> None:
        assert (threading.get_ident(), asyncio.get_running_loop()) == (self.thread, self.loop)
        if dst.name == "forever":
            dst.write_text("begun")  # noqa: ASYNC240 - its own thread
            await asyncio.sleep(3600)
        with dst.open("wb") as file:
            file.write(f"{resp.status_code} {resp.headers['X-COLOUR']} {resp.url.path} ".encode())
            async for chunk in resp.aiter_bytes():
                file.write(chunk)

    async def finalize(self, request_id: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
        if inputs["do"] == "block":
            print("blocking")
            while not Path(inputs["path"]).exists():  # noqa: ASYNC240 - what a careless author does
                time.sleep(0.01)  # noqa: ASYNC251
        elif inputs["do"] == "nothing":
            return None
        elif inputs["do"] == "raise":
            raise KeyError("no bucket")
        elif inputs["do"] == "exit":
            sys.exit(3)
        return {**outputs, "thread": threading.get_ident() == self.thread}


class Streamed(sprocket.Sprocket):
    processor = Streaming

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"content": Path(args["file"]).read_text() if "file" in args else None}


class Wrong(Streamed):
    processor = dict  # type: ignore[assignment]


class Failing(sprocket.InputOutputProcessor):
    def __init__(self) -> None:
        raise RuntimeError("no bucket at all")

    async def finalize(self, request_id: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        return outputs


class Failed(Streamed):
    processor = Failing  # type: ignore[assignment]
