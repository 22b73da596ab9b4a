"""A worker as a script of its own."""

from __future__ import annotations

from typing import Any

import sprocket


class Doubler(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"doubled": args["a"] * 2}


if __name__ == "__main__":
    sprocket.run(Doubler(), "some-name")
