"""Models with inputs to warm up with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import sprocket


class Warm(sprocket.Sprocket):
    warmup_inputs = ({"size": 1}, {"size": 2})

    def setup(self) -> None:
        self.seen: list[int] = []
        print("setup")

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(args.pop("size"))
        sprocket.emit_info({"seen": len(self.seen)})
        sprocket.log.info("size %d", self.seen[-1])
        return {"seen": self.seen}

    def shutdown(self) -> None:
        print("saw", self.seen)


class AsyncWarm(sprocket.AsyncSprocket):
    """Knows its inputs once it is set up."""

    @property
    def warmup_inputs(self) -> Sequence[dict[str, Any]]:  # type: ignore[override]
        return [{"word": word} for word in self.words]

    async def setup(self) -> None:
        self.words = ["a", "b"]
        self.seen: list[str] = []

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(args["word"])
        return {"seen": self.seen}


class Choking(sprocket.Sprocket):
    warmup_inputs = ({"fine": True}, {"fine": False})

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        if not args["fine"]:
            raise ValueError("this one is not fine")
        return {}


class Leaving(sprocket.Sprocket):
    warmup_inputs = ({},)

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        sys.exit(7)


class Cold(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


class Wrong(Cold):
    warmup_inputs = ("size 1",)  # type: ignore[assignment]
