"""A deployment's queue as a whole: `jig queue-status`, `queue-clear` and `queue-settings`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from jig.nearest import naming
from jig.options import PROJECT_DEFAULTS, Duration, Name, ProjectGlobals, Yes
from jig.queue_settings import changes, settings_text
from jig.session import Session
from jig.tables import fields
from jig.units import count

SETTINGS_PATH = "/v1/queue/settings"

MAX_PENDING = "How many jobs may wait; more are refused until there is room."
MAX_RUNNING_PER_KEY = "How many jobs of one fair key run at a time; none for no limit."
KEEP = "How long ended jobs are kept: 12h, 7d."
KEEP_COUNT = "How many ended jobs are kept; the oldest go first."
WEIGHT = "A fair key's share of the workers' time, KEY=3; none for the usual 1. May be repeated."
CAP = "How many jobs of this fair key run at a time, KEY=2; none for what holds for every key. May be repeated."


def queue_status(name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Show how many jobs of a deployment run and wait."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        metrics = session.client.get("/v1/queue/metrics", model=name)
    shown = (("Running", "messages_running"), ("Waiting", "messages_waiting"))
    session.output.result(metrics, fields((label, f"{metrics.get(key, 0):,}") for label, key in shown))


def queue_clear(name: Name = None, *, yes: Yes = False, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Cancel all jobs of a deployment that wait; those that run go on."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        if not yes:
            waiting = session.client.get("/v1/queue/metrics", model=name).get("messages_waiting", 0)
            if not waiting:
                session.output.result({"canceled_count": 0}, f"No job of {name} waits.")
                return
            session.confirm(f"Cancel {count(waiting, 'waiting job')} of {name}?", yes=False)
        answer = session.client.post("/v1/queue/clear", {"model": name})
    session.output.result(answer, f"{count(answer.get('canceled_count', 0), 'job')} canceled.")


def queue_settings(
    name: Name = None,
    *,
    max_pending: Annotated[PositiveInt | None, Parameter(help=MAX_PENDING)] = None,
    max_running_per_key: Annotated[str | None, Parameter(help=MAX_RUNNING_PER_KEY)] = None,
    keep: Annotated[Duration | None, Parameter(help=KEEP)] = None,
    keep_count: Annotated[NonNegativeInt | None, Parameter(help=KEEP_COUNT)] = None,
    weight: Annotated[list[str] | None, Parameter(negative=(), help=WEIGHT)] = None,
    cap: Annotated[list[str] | None, Parameter(negative=(), help=CAP)] = None,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Show a queue's limits and fair keys, or change them."""
    session = Session(options)
    wanted = changes(
        max_pending=max_pending,
        max_running_per_key=max_running_per_key,
        keep=keep,
        keep_count=keep_count,
        weights=weight or [],
        caps=cap or [],
    )
    client, name = session.client, session.deployment_name(name)
    with naming(client, name):
        settings = client.get(SETTINGS_PATH, model=name)
    if wanted.is_any:
        settings = client.patch(SETTINGS_PATH, wanted.body(settings.get("keys") or {}), model=name)
    session.output.result(settings, settings_text(settings))
