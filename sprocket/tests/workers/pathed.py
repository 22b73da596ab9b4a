"""A script that names the path of predict."""

from __future__ import annotations

import os
from typing import Any

import sprocket


class Pathed(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


if __name__ == "__main__":
    sprocket.run(Pathed(), "pathed", predict_path=os.environ.get("PREDICT_AT", "/v1/images/generate"))
