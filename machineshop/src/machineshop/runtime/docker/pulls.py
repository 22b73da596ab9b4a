"""The pulls of images that are under way, and how far each has come.

Place in the flow: `images.py` feeds a pull with what the engine tells of it, layer by layer; a replica that waits for
its image shows the sentence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

GIB = 1024**3
# What the engines call a layer's steps.
_DOWNLOADED = frozenset({"Verifying Checksum", "Download complete"})
_KNOWN = frozenset({"Pulling fs layer", "Waiting"})


class Layer(msgspec.Struct):
    """How far one layer of an image has come."""

    here_bytes: int = 0
    all_bytes: int | None = None
    """None as long as the engine has not told."""
    downloaded: bool = False
    unpacked: bool = False


class Pull:
    """One image on its way into the engine."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}

    def heard(self, step: dict[str, Any]) -> None:
        """Take note of what the engine says; engines say different things, and what is not understood is left out."""
        name, status, detail = step.get("id"), step.get("status"), step.get("progressDetail") or {}
        if not isinstance(name, str) or not isinstance(status, str):
            return
        if status == "Downloading":
            layer = self._layers.setdefault(name, Layer())
            layer.here_bytes, layer.all_bytes = detail.get("current") or 0, detail.get("total") or layer.all_bytes
        elif status == "Already exists":
            self._layers.pop(name, None)
        elif status in _KNOWN:
            self._layers.setdefault(name, Layer())
        elif name in self._layers and status in _DOWNLOADED | {"Extracting", "Pull complete"}:
            layer = self._layers[name]
            layer.downloaded, layer.unpacked = True, layer.unpacked or status == "Pull complete"
            layer.here_bytes = layer.all_bytes = layer.all_bytes or layer.here_bytes

    def __str__(self) -> str:
        layers = self._layers.values()
        here_bytes = sum(layer.here_bytes for layer in layers)
        if not here_bytes:
            return "Its image is being pulled."
        if all(layer.downloaded for layer in layers):
            unpacked = sum(layer.unpacked for layer in layers)
            return f"Its image is being unpacked: {unpacked} of {len(layers)} layers."
        sizes = [layer.all_bytes for layer in layers]
        known = sum(size for size in sizes if size is not None)
        of = "so far" if None in sizes else f"of {known / GIB:.2f} GiB"
        return f"Its image is being pulled: {here_bytes / GIB:.2f} GiB {of}."


class Pulls:
    """All of them, by the project that wants the image and the image's name there."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, str], Pull] = {}

    def of(self, project_id: str, reference: str) -> Pull | None:
        """The one for this image, where there is one."""
        return self._under_way.get((project_id, reference))

    @contextmanager
    def begun(self, project_id: str, reference: str) -> Iterator[Pull]:
        """A pull, for as long as this block takes; of two at once for the same image the later one is shown."""
        pull = self._under_way[project_id, reference] = Pull()
        try:
            yield pull
        finally:
            if self._under_way.get((project_id, reference)) is pull:
                del self._under_way[project_id, reference]
