"""A worker with typed inputs where pydantic is not installed."""

import sys

import sprocket

sys.modules["pydantic"] = None  # type: ignore[assignment]


class Typed(sprocket.Sprocket):
    def predict(self, prompt: str, steps: int = 30) -> dict[str, str]:
        return {"prompt": prompt * steps}


class Plain(sprocket.Sprocket):
    def predict(self, args: dict[str, str]) -> dict[str, str]:
        return args
