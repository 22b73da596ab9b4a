"""How many replicas a deployment has: `jig scale`, and `jig scale why`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from jig.errors import UsageError
from jig.nearest import naming
from jig.options import PROJECT_DEFAULTS, Name, ProjectGlobals
from jig.session import Session
from jig.tables import columns, fields
from jig.units import age
from jig.waiting import to_let_one_run

DECISIONS_SHOWN = 10
NAME_CHARACTERS_MIN = 4  # of a deployment; a shorter number can only be one of replicas


def set_bounds(
    name: Name = None,
    *,
    min_replicas: Annotated[
        NonNegativeInt | None, Parameter(name="--min", help="At least so many replicas; 0 for none while idle.")
    ] = None,
    max_replicas: Annotated[NonNegativeInt | None, Parameter(name="--max", help="At most so many replicas.")] = None,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Change between how many replicas a deployment has, without a new revision; without options, show it."""
    if name and name.isdecimal() and len(name) < NAME_CHARACTERS_MIN:
        raise UsageError(f'"{name}" is no deployment\'s name.', hint=f"To have {name} replicas: {both(name)}")
    session = Session(options)
    name = session.deployment_name(name)
    path = f"/v1/deployments/{name}"
    given = {"min_replicas": min_replicas, "max_replicas": max_replicas}
    body = {key: value for key, value in given.items() if value is not None}
    with naming(session.client, name):
        deployment = session.client.patch(path, body) if body else session.client.get(path)
    session.output.result(deployment, bounds_text(deployment))
    note_bar(session, name, deployment)


def both(number: str) -> str:
    """The command for just so many replicas."""
    return f"jig scale --min {number} --max {number}"


def why(name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Say why a deployment has as many replicas as it has, and how that number came about."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        scaling = session.client.get(f"/v1/deployments/{name}/scaling", limit=DECISIONS_SHOWN)
    session.output.result(scaling, why_text(scaling, datetime.now(UTC)))
    note_bar(session, name, scaling)


def note_bar(session: Session, name: str, bounds: Mapping[str, Any]) -> None:
    """Say how to let a replica run, where none may."""
    if bounds.get("max_replicas") == 0:
        session.output.note(f"No replica may run. {to_let_one_run(name)}")


def bounds_text(deployment: Mapping[str, Any]) -> str:
    """The text of `jig scale`."""
    ready, desired = deployment.get("ready_replicas") or 0, deployment.get("desired_replicas") or 0
    pairs = (
        ("Deployment", str(deployment["name"])),
        ("Replicas", f"{ready} ready of {desired}"),
        ("Min", str(deployment.get("min_replicas"))),
        ("Max", str(deployment.get("max_replicas"))),
    )
    return fields(pairs)


def why_text(scaling: Mapping[str, Any], now: datetime) -> str:
    """The text of `jig scale why`."""
    latest = scaling.get("now") or {}
    desired = scaling.get("desired_replicas") or 0
    bounds = f"between {scaling.get('min_replicas')} and {scaling.get('max_replicas')}"
    noun = "replica" if desired == 1 else "replicas"
    message = latest.get("message") or "The platform has not looked at it yet."
    parts = [f"{desired} {noun} ({bounds}): {message}"]
    rows = [
        (
            age(decision.get("at"), now),
            f"{decision.get('before')} -> {decision.get('replicas')}",
            str(decision.get("message") or decision.get("reason") or ""),
        )
        for decision in scaling.get("decisions") or []
    ]
    if rows:
        parts.append(columns(("AGO", "CHANGE", "WHY"), rows))
    return "\n\n".join(parts)
