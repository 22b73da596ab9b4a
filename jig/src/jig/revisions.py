"""Revisions as people read them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jig.deployment import revision_name
from jig.tables import columns, fields
from jig.units import age

DIGEST_SHOWN = len("sha256:") + 12
# What a revision is called and when it was made is no part of what it runs.
NO_CONFIG = frozenset(
    {"object", "id", "revision_id", "revision_number", "protocol", "created_at", "ready_at", "failure"}
)


def events_text(events: Sequence[Mapping[str, Any]], active: str | None, serving: set[str], now: datetime) -> str:
    """The table of `jig revisions list`: a revision that runs is marked where it was put to work last."""
    rows = []
    shown: set[object] = set()
    for event in events:
        revision = event.get("revision_id")
        is_newest = revision not in shown
        shown.add(revision)
        is_active, serves = is_newest and revision == active, is_newest and revision in serving
        rows.append(
            (
                f"{name_of(event)}{' *' if is_active else ''}",
                str(event.get("action")),
                f"{age(event.get('activated_at'), now)} ago",
                f"{fate(event)}{', serves' if serves else ''}",
                short(event.get("image")),
            )
        )
    return columns(("REVISION", "ACTION", "WHEN", "STATE", "IMAGE"), rows) if rows else "No revisions."


def fate(event: Mapping[str, Any]) -> str:
    """How a revision fared, in a few words."""
    failure = event.get("failure")
    if failure:
        return f"failed: {failure.get('reason')}{', rolled back' if failure.get('rolled_back') else ''}"
    return "worked" if event.get("ready_at") else "-"


def last_that_worked(events: Sequence[Mapping[str, Any]]) -> str | None:
    """The id of the revision that worked last; where none has, of the last that did not fail, as one that only slept.

    Args:
        events: the newest first.
    """
    worked = [each for each in events if each.get("ready_at")] or [each for each in events if not each.get("failure")]
    return str(worked[0]["revision_id"]) if worked else None


def revision_text(revision: Mapping[str, Any], now: datetime) -> str:
    """The text of `jig revisions show`."""
    head = [
        ("Revision", str(revision.get("revision_number"))),
        ("ID", str(revision.get("revision_id"))),
        ("Created", f"{age(revision.get('created_at'), now)} ago"),
    ]
    parts = [fields([*head, *sorted(flat(revision).items())])]
    failure = revision.get("failure")
    if failure:
        parts.append(f"It did not get ready. {failure.get('reason')}: {failure.get('message')}")
        parts.append("\n".join(f"  {line}" for line in failure.get("log") or ()))
    return "\n\n".join(part for part in parts if part)


def diff_text(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs, under the two revisions' names, a line for each side; empty where nothing does."""
    before, after = flat(old), flat(new)
    lines = []
    for key in sorted({*before, *after}):
        if before.get(key) == after.get(key):
            continue
        lines += [f"- {key}: {before[key]}"] if key in before else []
        lines += [f"+ {key}: {after[key]}"] if key in after else []
    head = [f"--- revision {name_of(old)}", f"+++ revision {name_of(new)}"]
    return "\n".join([*head, *lines]) if lines else ""


def name_of(revision: Mapping[str, Any]) -> str:
    """What it, or what an event put to work, is called."""
    return revision_name(revision.get("revision_number"), revision.get("revision_id"))


def flat(revision: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as names and values: one for each environment variable, and none for what is empty."""
    found: dict[str, str] = {}
    for key, value in revision.items():
        if key == "environment_variables":
            found |= {f"environment.{each['name']}": variable(each) for each in value}
        elif key not in NO_CONFIG and value not in (None, "", [], {}):
            found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def variable(each: Mapping[str, Any]) -> str:
    """A variable's value, or where it comes from."""
    secret = each.get("value_from_secret")
    return f"secret {secret}" if secret else str(each.get("value") or "")


def short(image: object) -> str:
    """The reference with as much of its digest as people compare."""
    name, at, digest = str(image or "-").partition("@")
    return f"{name}{at}{digest[:DIGEST_SHOWN]}"
