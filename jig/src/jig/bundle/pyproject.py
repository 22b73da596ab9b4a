"""A pyproject.toml as the bundle holds it: without `[tool.jig]`, which says how to deploy, not what runs. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import Any

JIG_HEADER = re.compile(r"\s*\[\[?\s*tool\s*\.\s*jig\s*[.\]]")
ANY_HEADER = re.compile(r"\s*\[")


def without_jig_tables(text: str) -> str:
    """The text without the lines of `[tool.jig]` and the tables below it; as it is where they are written otherwise."""
    kept, is_jig = [], False
    for line in text.splitlines(keepends=True):
        if ANY_HEADER.match(line):
            is_jig = bool(JIG_HEADER.match(line))
        if not is_jig:
            kept.append(line)
    shorter = "".join(kept).rstrip("\n") + "\n"
    # What looks like a header may be a line of a list or of a long string: only what parses to the same counts.
    return shorter if parsed(shorter) == without_jig(parsed(text)) else text


def without_jig(document: dict[str, Any] | None) -> dict[str, Any]:
    """The document with no `tool.jig`, and no `tool` where nothing else is in it."""
    document = document or {}
    tool = document.get("tool")
    if not isinstance(tool, dict):
        return document
    others = {key: value for key, value in tool.items() if key != "jig"}
    rest = {key: value for key, value in document.items() if key != "tool"}
    return {**rest, "tool": others} if others else rest


def parsed(text: str) -> dict[str, Any] | None:
    """What the TOML holds, or None where it is none."""
    try:
        return tomllib.loads(text)
    except ValueError:
        return None
