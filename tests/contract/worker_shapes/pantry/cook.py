"""The shape with a volume, a secret and files: read as the platform gives them, a file in, a file out."""

import os
import tempfile
from pathlib import Path

import sprocket

PANTRY = Path(os.environ.get("PANTRY", "/pantry"))


class Cook(sprocket.Sprocket):
    def setup(self) -> None:
        self.spice = os.environ.get("SECRET_SPICE", "salt")
        self.recipes = {file.stem: file.read_text().strip() for file in PANTRY.glob("*.txt")}

    def predict(self, args: dict) -> dict:
        result: dict = {"menu": sorted(self.recipes)}
        if dish := args.get("dish"):
            result["plate"] = f"{dish}: {self.recipes[dish]}, with {self.spice}"
        if order := args.get("order"):
            result["order"] = Path(order).read_text()
        if args.get("bill"):
            with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as bill:
                bill.write(f"{args.get('dish')}: 7.50\n")
            result["bill"] = sprocket.FileOutput(bill.name)
        return result


if __name__ == "__main__":
    sprocket.run(Cook(), os.environ.get("TOGETHER_DEPLOYMENT_NAME", "shape-pantry"))
