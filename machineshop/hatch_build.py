"""Puts the wheels of sprocket and jig into the platform: its bundles and its package index bring them to others."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder

CARRIED = ("sprocket", "jig")


class CarriedWheels(BuildHookInterface):  # type: ignore[type-arg]
    """Builds ../sprocket and ../jig into src/machineshop/wheels before the platform itself is packed or linked."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface's
        """Leave exactly one wheel of each; an sdist, which has no ../sprocket, brings those it was made with."""
        sources = [Path(self.root).parent / name for name in CARRIED]
        if not all((source / "pyproject.toml").exists() for source in sources):
            return
        wheels = Path(self.root) / "src" / "machineshop" / "wheels"
        wheels.mkdir(exist_ok=True)
        for stale in wheels.glob("*.whl"):
            stale.unlink()
        for source in sources:
            for _ in WheelBuilder(str(source)).build(directory=str(wheels), versions=["standard"]):
                pass
