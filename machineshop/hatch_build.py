"""Puts the wheel of sprocket into the platform, which installs it into the environments of bundles."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder


class SprocketWheel(BuildHookInterface):  # type: ignore[type-arg]
    """Builds ../sprocket into src/machineshop/wheels before the platform itself is packed or linked."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface's
        """Leave exactly one wheel; an sdist, which has no ../sprocket, brings the wheel it was made with."""
        source = Path(self.root).parent / "sprocket"
        if not (source / "pyproject.toml").exists():
            return
        wheels = Path(self.root) / "src" / "machineshop" / "wheels"
        wheels.mkdir(exist_ok=True)
        for stale in wheels.glob("*.whl"):
            stale.unlink()
        for _ in WheelBuilder(str(source)).build(directory=str(wheels), versions=["standard"]):
            pass
