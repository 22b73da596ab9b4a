"""`jig logs`."""

from __future__ import annotations

import json
from contextlib import suppress
from math import ceil
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from jig.client import Client
from jig.errors import NotFoundError, PlatformError, UsageError
from jig.nearest import meant, naming
from jig.options import PROJECT_DEFAULTS, Name, ProjectGlobals
from jig.session import Session
from jig.units import duration_seconds, moment

FOLLOW = "Go on with new lines until Ctrl-C. With --json: one JSON object a line."
IMAGE_VERSION = "Of this image alone: its tag, or the last 4 characters of its digest."

SINCE = "Of the last `10m`, `2h`, `1d`, or since a time such as `2030-01-31T12:00:00Z`."


def logs(
    name: Name = None,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"), negative=(), show_default=False, help=FOLLOW)] = False,
    replica_id: Annotated[str | None, Parameter(help="Of this replica alone.")] = None,
    revision: Annotated[str | None, Parameter(help="Of this revision alone.")] = None,
    image_version: Annotated[str | None, Parameter(help=IMAGE_VERSION)] = None,
    since: Annotated[str | None, Parameter(help=SINCE)] = None,
    tail: Annotated[PositiveInt | None, Parameter(help="The last so many lines.")] = None,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Print what a deployment's replicas have written."""
    session = Session(options)
    name = session.deployment_name(name)
    path = f"/v1/deployments/{name}"
    wanted: dict[str, object] = {
        "replica_id": replica_id,
        "revision": revision,
        "version": image_version,
        "since": None if since is None else read_since(since),
        "tail": tail,
    }
    with naming(session.client, name):
        if follow:
            if replica_id is not None:
                check_replica(session.client, path, replica_id)
            follow_lines(session, f"{path}/logs", wanted)
            with suppress(NotFoundError):
                session.client.get(path)  # a key that has ended, and not the deployment, may be why no more comes
            return
        answer = session.client.get(f"{path}/logs", **wanted)
    lines = answer.get("lines") or []
    shown = lines[-tail:] if tail else lines
    if not shown and replica_id is not None:
        check_replica(session.client, path, replica_id)
    if not shown:
        session.output.note("There are no log lines.")
    if shown or options.json:
        session.output.result({"lines": shown}, "\n".join(shown))


def read_since(text: str) -> str:
    """The value of `--since` as the platform takes it, which knows no days.

    Raises:
        UsageError: it is neither a duration nor a time.
    """
    if moment(text):
        return text
    try:
        return f"{ceil(duration_seconds(text, '--since'))}s"
    except UsageError as error:
        message = f"--since {text}: that is neither a duration nor a time."
        raise UsageError(message, hint="Write 10m, 2h, 1d, or a time such as 2030-01-31T12:00:00Z.") from error


def check_replica(client: Client, path: str, replica_id: str) -> None:
    """There is this replica, or a log of it where it ended a while ago.

    Args:
        client: the platform.
        path: the deployment's.
        replica_id: whose log is asked for.

    Raises:
        NotFoundError: there is neither.
    """
    replicas = client.get(path).get("replica_events") or {}
    if replica_id in replicas or client.get(f"{path}/logs", replica_id=replica_id, tail=1).get("lines"):
        return
    name = path.rpartition("/")[2]
    raise NotFoundError(f"{name} has no replica {replica_id}, and no log of one.", hint=meant(replica_id, replicas))


def follow_lines(session: Session, path: str, wanted: dict[str, object]) -> None:
    """Print lines as they come, until the platform ends them or Ctrl-C."""
    output = session.output
    for piece in session.client.lines(path, {"follow": "true", **wanted}):
        if not piece.strip():
            continue
        try:
            document = json.loads(piece)
        except ValueError as error:
            raise PlatformError(f"The platform sent a log line that is not JSON: {piece[:80]}") from error
        if output.json:
            output.document(document)
            continue
        for line in document.get("lines") or []:
            output.line(line)
