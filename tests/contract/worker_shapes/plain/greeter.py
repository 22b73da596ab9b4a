"""The plain shape: an instance, a name from the environment, the command `python3 greeter.py --queue`."""

import logging
import os
import time

import sprocket

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger(__name__)


class Greeter(sprocket.Sprocket):
    warmup_inputs = [{"name": "nobody"}]

    def setup(self) -> None:
        self.greeted = 0
        logger.info("set up")

    def predict(self, args: dict) -> dict:
        time.sleep(float(args.get("sleep", 0)))
        self.greeted += 1
        sprocket.emit_info({"greeted": self.greeted})
        return {"message": f"Good morning, {args['name']}", "greeted": self.greeted}

    def shutdown(self) -> None:
        logger.info("greeted %i", self.greeted)


if __name__ == "__main__":
    sprocket.run(Greeter(), os.environ.get("TOGETHER_DEPLOYMENT_NAME", "shape-plain"))
