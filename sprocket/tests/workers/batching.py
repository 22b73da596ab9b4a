"""Workers that predict several jobs together."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import sprocket


class Sums(sprocket.Sprocket):
    """Says of each job with how many others it was predicted."""

    batch_size = 4
    batch_wait_seconds = 30

    def setup(self) -> None:
        self.thread = threading.get_ident()

    def predict_batch(self, batch: list) -> Any:  # type: ignore[type-arg]
        assert threading.get_ident() == self.thread
        do = {args.get("do") for args in batch}
        if "raise" in do:
            raise ValueError("the batch is bad")
        if "short" in do:
            return [{}]
        if "text" in do:
            return "results"
        if "exit" in do:
            raise SystemExit(3)
        sprocket.emit_info({"batch": len(batch)})
        return [ValueError("odd") if args.get("do") == "odd" else {**args, "together": len(batch)} for args in batch]


class Item(BaseModel):
    n: int
    gate: Path | None = None


class Typed(sprocket.AsyncSprocket):
    batch_size = 2
    batch_wait_seconds = 0.05

    async def predict_batch(self, batch: list[Item]) -> list[Any]:
        print("batch of", [item.n for item in batch], flush=True)
        while not all(item.gate is None or item.gate.exists() for item in batch):
            await asyncio.sleep(0.01)
        return [{"twice": item.n * 2} for item in batch]


class Patient(Typed):
    """Has the jobs of the next batch in hand while one is predicted."""

    concurrency = 5
    batch_wait_seconds = 30
