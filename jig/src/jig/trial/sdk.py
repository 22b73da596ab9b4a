"""The sprocket that is installed beside jig: found, never imported. It takes the place of a platform's own."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from jig.errors import TrialError

NAME = "sprocket"


@dataclass(frozen=True)
class Sdk:
    """Where sprocket's code is, and what it requires."""

    folder: Path
    requirements: tuple[str, ...]

    def digest(self) -> str:
        """What tells one sprocket from another."""
        digest = hashlib.sha256("\n".join(self.requirements).encode())
        for path in sorted(self.folder.rglob("*.py")):
            digest.update(path.relative_to(self.folder).as_posix().encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


def find_sdk() -> Sdk:
    """The sprocket that is installed where jig is.

    Raises:
        TrialError: there is none.
    """
    spec = find_spec(NAME)
    places = list(spec.submodule_search_locations or []) if spec else []
    try:
        required = requires(NAME) or []
    except PackageNotFoundError:
        places = []
        required = []
    if not places:
        hint = "Install it there, or name a Python that has it, and what the worker needs, with --python."
        raise TrialError(f"sprocket is not installed where jig is ({sys.prefix}).", hint=hint)
    return Sdk(Path(places[0]), tuple(line for line in required if "extra ==" not in line))
