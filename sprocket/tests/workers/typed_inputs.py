"""Workers with typed inputs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FilePath, HttpUrl

import sprocket


class Fields(sprocket.Sprocket):
    """Paints pictures."""

    def predict(self, prompt: str, steps: Annotated[int, Field(ge=1, le=100)] = 30, *, seed: int | None = None) -> Any:
        """Paint one."""
        print("predict was called")
        return {"prompt": prompt, "steps": steps, "seed": seed}


class Box(BaseModel):
    name: str
    size: tuple[int, int] = (1, 1)


class Boxes(BaseModel):
    items: list[Box]
    mode: Literal["pack", "count"] = "pack"


class Packed(BaseModel):
    names: list[str]
    area: int = 0


class Objects(sprocket.AsyncSprocket):
    async def predict(self, boxes: Boxes) -> Packed:
        await asyncio.sleep(0)
        sizes = [box.size for box in boxes.items]
        return Packed(names=[box.name for box in boxes.items], area=sum(width * height for width, height in sizes))


@dataclass
class Size:
    width: int
    height: int = 1


class Dataclasses(sprocket.Sprocket):
    def predict(self, size: Size) -> Any:
        return Size(size.height, size.width)


class Files(sprocket.Sprocket):
    def predict(
        self, text: str, path: Path, present: FilePath | None = None, page: HttpUrl | None = None, n: int = 0
    ) -> Any:
        return {
            "text": Path(text).read_text(),
            "path": path.read_text(),
            "present": present.read_text() if present else None,
            "page": str(page) if page else None,
        }


class Plain(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


class Mistaken(sprocket.Sprocket):
    def predict(self, clock: time.struct_time | asyncio.Event, n: int = 0) -> Any:
        return {}
