"""What a deployment has run: `jig revisions list|show|diff`, and the way back, `jig rollback`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter

from jig.deployment import revision_of
from jig.errors import UsageError
from jig.nearest import naming
from jig.options import PROJECT_DEFAULTS, Detach, Name, NameOption, ProjectGlobals, ReadyTimeout
from jig.revisions import diff_text, events_text, last_that_worked, revision_text
from jig.rollout import wait_until_ready
from jig.session import Session
from jig.tracking import READY_TIMEOUT_SECONDS, named_revision, serving

LISTED = 10
MOST_LISTED = 100

Revision = Annotated[str | None, Parameter(name="--revision", help="Its number or id. [default: the one that runs]")]


def list_revisions(
    name: Name = None,
    *,
    limit: Annotated[int, Parameter(help="How many, the newest first.")] = LISTED,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """List which revision was put to work when, newest first, and how it fared."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        answer = events(session, name, limit)
        deployment = session.client.get(f"/v1/deployments/{name}")
    text = events_text(answer["data"], revision_of(deployment), serving(deployment), datetime.now(UTC))
    session.output.result(answer, text)


def show(revision: Revision = None, *, name: NameOption = None, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Show a revision's configuration, and why it did not get ready."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        found = get(session, name, revision or active(session, name))
    session.output.result(found, revision_text(found, datetime.now(UTC)))


def diff(
    before: Annotated[
        str | None,
        Parameter(name="--from", help="Number or id of the one before. [default: the last other one that worked]"),
    ] = None,
    after: Annotated[
        str | None, Parameter(name="--to", help="Number or id of the one after. [default: the one that runs]")
    ] = None,
    *,
    name: NameOption = None,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Show what differs between two revisions."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        after = after or active(session, name)
        before = before or previous(session, name, after)
        old, new = get(session, name, before), get(session, name, after)
    text = diff_text(old, new)
    session.output.result({"from": old, "to": new}, text or "They are the same.")


def rollback(
    revision: Annotated[
        str | None, Parameter(name="--revision", help="Its number or id. [default: the last other one that worked]")
    ] = None,
    *,
    name: NameOption = None,
    detach: Detach = False,
    timeout: ReadyTimeout = READY_TIMEOUT_SECONDS,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Run an earlier revision again, and wait until it is ready; the number of replicas stays."""
    session = Session(options)
    name = session.deployment_name(name)
    path = f"/v1/deployments/{name}/rollback"
    with naming(session.client, name):
        target = revision or previous(session, name, active(session, name))
        deployment: dict[str, Any] = session.client.post(path, {"revision_identifier": target})
    named = named_revision(deployment, revision_of(deployment))
    if detach:
        session.output.result(deployment, f"{name} goes back to revision {named}.")
        return
    session.output.note(f"{name} goes back to revision {named}.")
    tracked, deployment = wait_until_ready(session, deployment, timeout)
    session.output.result(deployment, f"{name} runs revision {named}: {tracked.reason}.")


def events(session: Session, name: str, limit: int) -> dict[str, Any]:
    """The last events of a deployment's revisions.

    Raises:
        UsageError: more are asked for than there can be.
    """
    if not 1 <= limit <= MOST_LISTED:
        raise UsageError(f"--limit {limit}: it must be 1 to {MOST_LISTED}.")
    answer = session.client.request("GET", f"/v1/deployments/{name}/revisions", params={"limit": limit})
    found: dict[str, Any] = session.client.document(answer)
    return found


def active(session: Session, name: str) -> str:
    """The revision that is to run."""
    return revision_of(session.client.get(f"/v1/deployments/{name}")) or "1"


def previous(session: Session, name: str, revision: str) -> str:
    """The last revision that worked, other than this one.

    Raises:
        UsageError: there is none.
    """
    own = (revision, str(get(session, name, revision).get("revision_id")))
    others = [each for each in events(session, name, MOST_LISTED)["data"] if str(each["revision_id"]) not in own]
    if (found := last_that_worked(others)) is None:
        message = f"{name} has run no other revision that worked."
        raise UsageError(message, hint=f"See them: jig revisions list {name}")
    return found


def get(session: Session, name: str, revision: str) -> dict[str, Any]:
    """One revision."""
    found: dict[str, Any] = session.client.get(f"/v1/deployments/{name}/revisions/{revision}")
    return found
