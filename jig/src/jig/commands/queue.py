"""A deployment's queue as a whole: `jig queue-status` and `queue-clear`."""

from __future__ import annotations

from jig.options import PROJECT_DEFAULTS, Name, ProjectGlobals, Yes
from jig.session import Session
from jig.tables import fields
from jig.units import count


def queue_status(name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Show how many jobs of a deployment run and wait."""
    session = Session(options)
    metrics = session.client.get("/v1/queue/metrics", model=session.deployment_name(name))
    shown = (("Running", "messages_running"), ("Waiting", "messages_waiting"))
    session.output.result(metrics, fields((label, str(metrics.get(key, 0))) for label, key in shown))


def queue_clear(name: Name = None, *, yes: Yes = False, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Cancel all jobs of a deployment that wait; those that run go on."""
    session = Session(options)
    name = session.deployment_name(name)
    session.confirm(f"Cancel all waiting jobs of {name}?", yes=yes)
    answer = session.client.post("/v1/queue/clear", {"model": name})
    session.output.result(answer, f"{count(answer.get('canceled_count', 0), 'job')} canceled.")
