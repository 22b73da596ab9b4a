"""`.jig.json` beside the config: what jig remembers about a project between runs.

The file holds one object a deployment name. Keys that this jig does not know are kept as they are.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE_FILE = ".jig.json"


@dataclass(frozen=True)
class BuiltImage:
    """An image on this machine, under the deployment's name.

    Args:
        tag: what it is called in the registry, made of all that went into it.
        builder: that made it, and knows it.
        is_warmed: its compile cache is baked in.
        chosen_tag: what it is called here and in the registry instead, where somebody chose that; else it is `latest`.
    """

    tag: str
    builder: str
    is_warmed: bool
    chosen_tag: str | None = None


class State:
    """A project's memory.

    Args:
        folder: the project's folder.
        name: the deployment's name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / STATE_FILE
        self._name = name

    def pinned_requirements(self, key: str) -> str | None:
        """The requirement lines pinned for this input, or None where it is another one."""
        kept = self._own().get("requirements")
        return kept.get("pinned") if isinstance(kept, dict) and kept.get("input") == key else None

    def keep_requirements(self, key: str, pinned: str) -> None:
        """Remember the lines pinned for this input, instead of any earlier ones."""
        self._keep("requirements", {"input": key, "pinned": pinned})

    def _keep(self, key: str, value: object) -> None:
        everything = self._read()
        everything[self._name] = {**self._own(), key: value}
        # A project folder that cannot be written is still deployed: it is only locked anew the next time.
        with contextlib.suppress(OSError):
            self._write(everything)

    def built_image(self) -> BuiltImage | None:
        """The image that was built last, if any."""
        kept = self._own().get("image")
        if not isinstance(kept, dict):
            return None
        tag, builder, is_warmed = str(kept.get("tag") or ""), kept.get("builder") or "", kept.get("warmed") is True
        return BuiltImage(tag, builder, is_warmed, str(kept.get("chosen_tag") or "") or None)

    def keep_built_image(self, image: BuiltImage) -> None:
        """Remember the image that was just built."""
        kept = {"tag": image.tag, "builder": image.builder, "warmed": image.is_warmed}
        self._keep("image", kept | ({"chosen_tag": image.chosen_tag} if image.chosen_tag else {}))

    def secrets(self) -> dict[str, str] | None:
        """The names of the project's secrets by variable; None where nobody has kept any, not even none."""
        everything = self._read()
        own = everything.get(self._name)
        # An older file is that of one project alone.
        kept = (own if isinstance(own, dict) else everything).get("secrets")
        if not isinstance(kept, dict):
            return None
        return {name: secret for name, secret in kept.items() if isinstance(secret, str)}

    def keep_secrets(self, secrets: Mapping[str, str]) -> None:
        """Remember the names of the project's secrets by variable, instead of any earlier ones.

        Raises:
            OSError: the folder cannot be written, or the file is a link.
        """
        everything = self._read()
        everything[self._name] = {**self._own(), "secrets": dict(secrets)}
        self._write(everything)

    def _write(self, everything: dict[str, Any]) -> None:
        if self._path.is_symlink():  # what it leads to may be another's
            raise OSError(errno.ELOOP, "It is a link, and jig writes through none", str(self._path))
        self._path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")

    def _own(self) -> dict[str, Any]:
        own = self._read().get(self._name)
        return own if isinstance(own, dict) else {}

    def _read(self) -> dict[str, Any]:
        try:
            everything = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return everything if isinstance(everything, dict) else {}
