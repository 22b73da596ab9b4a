"""Who changed what: `jig audit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.tables import columns

DEFAULT_LIMIT = 50
HEADINGS = ("WHEN", "WHO", "FROM", "ACTION", "WHAT", "CHANGE")
CHANGE_SHOWN_CHARACTERS = 100


def audit(
    *,
    limit: Annotated[int, Parameter(help="How many, at most 1,000.")] = DEFAULT_LIMIT,
    before: Annotated[str | None, Parameter(help="Only what came before the event with this ID.")] = None,
    action: Annotated[str | None, Parameter(help="Only `deployment.update`, say, or all of `deployment`.")] = None,
    options: Globals = DEFAULTS,
) -> None:
    """Show who changed what, the newest first; it wants an admin's key."""
    session = Session(options)
    document = session.client.get("/v1/audit", limit=limit, before=before, action=action)
    events = document.get("data") or []
    rows = [row(event) for event in events]
    session.output.result(document, columns(HEADINGS, rows) if rows else "Nothing was changed.")


def row(event: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    at = str(event.get("at") or "")[:19].replace("T", " ")
    who = str((event.get("actor") or {}).get("name") or "-")
    return at, who, str(event.get("address") or "-"), str(event.get("action")), str(event.get("subject")), change(event)


def change(event: Mapping[str, Any]) -> str:
    """What differs, in short; all of it is in `--json`."""
    before, after = event.get("before"), event.get("after")
    if before is None or after is None:
        return ""
    names = sorted({*before, *after})
    text = ", ".join(f"{name}: {brief(before.get(name))} -> {brief(after.get(name))}" for name in names)
    return text if len(text) <= CHANGE_SHOWN_CHARACTERS else f"{text[: CHANGE_SHOWN_CHARACTERS - 3]}..."


def brief(value: object) -> str:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False)
