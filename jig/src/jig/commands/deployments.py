"""Deployments as they are: `jig list`, `status`, `endpoint` and `destroy`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter

from jig.deployment import REVISION_VARIABLE
from jig.errors import DeployError, NotFoundError, WatchInterruptedError
from jig.nearest import naming
from jig.options import DEFAULTS, PROJECT_DEFAULTS, Globals, Name, ProjectGlobals, Yes
from jig.patience import Looks
from jig.session import Session
from jig.tables import columns, fields
from jig.tracking import named_revision
from jig.units import age, elapsed, seconds_between

POLL_SECONDS = 0.3
# A replica may take its whole grace period to drain; this much more is for everything else.
DESTROY_MARGIN_SECONDS = 30
ENDED_SHOWN = 3
VOLUMES_COLUMN = 3  # behind READY
DIGEST_SHOWN = len("sha256:") + 12


def list_deployments(*, options: Globals = DEFAULTS) -> None:
    """List the project's deployments."""
    session = Session(options)
    answer = session.client.get("/v1/deployments")
    session.output.result(answer, listing(answer["data"], datetime.now(UTC)))


def status(name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Show a deployment: its replicas, its configuration, and why it is not ready."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        deployment = session.client.get(f"/v1/deployments/{name}")
    session.output.result(deployment, summary(deployment, datetime.now(UTC)))


def endpoint(name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Print the URL at which a deployment answers requests, and how to call it."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        session.client.get(f"/v1/deployments/{name}")  # one that does not exist answers nowhere
    base_url = session.client.url(f"/v1/deployment-request/{name}")
    url = f"{base_url}/generate"
    session.output.result({"name": name, "url": url, "base_url": base_url}, url)
    session.output.note(example_call(url))


def destroy(
    name: Name = None,
    *,
    yes: Yes = False,
    detach: Annotated[bool, Parameter(negative=(), show_default=False, help="Do not wait until it is gone.")] = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Delete a deployment, and wait until its last replica has ended."""
    session = Session(options)
    name = session.deployment_name(name)
    path = f"/v1/deployments/{name}"
    with naming(session.client, name):
        deployment = session.client.get(path)
    session.confirm(f"Destroy {name}?", yes=yes)
    session.client.delete(path)
    if not detach:
        session.output.note(f"Waiting until {name} is gone.")
        wait_until_gone(session, deployment)
    state = "is deleted, and its replicas end by themselves" if detach else "is gone"
    session.output.result({"name": name, "destroyed": not detach}, f"{name} {state}.")


def wait_until_gone(session: Session, deployment: Mapping[str, Any]) -> None:
    """Wait for the last replica of a deleted deployment to end, and say how many there are.

    Args:
        session: where to ask and what to tell.
        deployment: as it was before.

    Raises:
        DeployError: one is still there some time after the grace period, or the platform is away for too long.
        WatchInterruptedError: Ctrl-C; the platform goes on.
    """
    name, message = deployment["name"], None
    limit_seconds = (deployment.get("termination_grace_period_seconds") or 0) + DESTROY_MARGIN_SECONDS
    looks = Looks(
        session.client,
        f"/v1/deployments/{deployment['id']}",
        session.output.note,
        meanwhile=f"{name} is deleted; whether its last replica has ended is not known.",
        hint="It gets no job and no request any more, and the platform ends its replicas as soon as it runs.",
    )
    deadline = looks.now() + limit_seconds
    try:
        while looks.now() < deadline:
            answer = looks.look(deleted="true")
            if answer.get("status_message") not in (None, message):
                message = answer["status_message"]
                session.output.note(str(message))
            time.sleep(POLL_SECONDS)
    except NotFoundError:
        return
    except KeyboardInterrupt as error:
        raise WatchInterruptedError(f"{name} is deleted; its replicas still end, by themselves.") from error
    hint = "It gets no job and no request any more. What keeps its replicas is in the log of `machineshop serve`."
    raise DeployError(f"{name} is deleted, and after {limit_seconds:.0f} s a replica is still there.", hint=hint)


def listing(deployments: list[Mapping[str, Any]], now: datetime) -> str:
    """The table of `jig list`."""
    if not deployments:
        return "No deployments. Start with `jig init`, then `jig deploy`."
    rows = [
        (
            str(item["name"]),
            str(item["status"]),
            replica_count(item),
            gpu(item),
            age(item.get("updated_at"), now),
            short_image(item.get("image")),
        )
        for item in deployments
    ]
    return columns(("NAME", "STATUS", "READY", "GPU", "UPDATED", "IMAGE"), rows)


def summary(item: Mapping[str, Any], now: datetime) -> str:
    """The text of `jig status`."""
    parts = [fields(facts(item, now))]
    if variables := visible_variables(item):
        parts.append("Environment\n" + indent(fields(variables)))
    events = item.get("replica_events") or {}
    if events:
        shown = sorted(worth_showing(events).items())
        rows = [replica_row(item, key, event, now) for key, event in shown]
        header = ["ID", "STATE", "READY", "REVISION", "WHY"]
        if any(event.get("volume_preload_status") for _, event in shown):
            header.insert(VOLUMES_COLUMN, "VOLUMES")
            for row, (_, event) in zip(rows, shown, strict=True):
                row.insert(VOLUMES_COLUMN, preload_text(event, now))
        parts.append("Replicas\n" + indent(columns(header, rows)))
    return "\n\n".join(parts)


def facts(item: Mapping[str, Any], now: datetime) -> list[tuple[str, str]]:
    """A deployment's names and values, the empty ones left out."""
    pairs = [
        ("Name", item["name"]),
        ("ID", item.get("id")),
        ("Status", item.get("status")),
        ("Why", item.get("status_message")),
        ("Replicas", f"{replica_count(item)} ready (min {item.get('min_replicas')}, max {item.get('max_replicas')})"),
        ("Image", short_image(item.get("image"))),
        ("GPU", gpu(item)),
        ("Resources", f"{item.get('cpu')} CPU, {item.get('memory')} GiB memory, {item.get('storage')} GiB storage"),
        ("Command", " ".join(item.get("command") or [])),
        ("Autoscaling", " ".join(f"{key}={value}" for key, value in (item.get("autoscaling") or {}).items())),
        ("Volumes", ", ".join(volume_text(each) for each in item.get("volumes") or [])),
        ("Created", f"{age(item.get('created_at'), now)} ago"),
        ("Updated", f"{age(item.get('updated_at'), now)} ago"),
    ]
    return [(key, str(value)) for key, value in pairs if value]


def visible_variables(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment variables that the user has set."""
    return [
        (
            each["name"],
            f"secret {each['value_from_secret']}" if each.get("value_from_secret") else each.get("value") or "",
        )
        for each in item.get("environment_variables") or []
        if each["name"] != REVISION_VARIABLE
    ]


def worth_showing(events: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The replicas without all but the last few that have ended; the platform lists the oldest first."""
    ended = [key for key, event in events.items() if event.get("replica_status") == "Terminated"]
    old = set(ended[:-ENDED_SHOWN])
    return {key: event for key, event in events.items() if key not in old}


def volume_text(mount: Mapping[str, Any]) -> str:
    """`words version 3 at /words`."""
    version = "" if mount.get("version") is None else f" version {mount['version']}"
    return f"{mount['name']}{version} at {mount['mount_path']}"


def preload_text(event: Mapping[str, Any], now: datetime) -> str:
    """How far a replica is with its volumes: `loading, 12 s`, `loaded in 3.4 s`, `failed`."""
    status = event.get("volume_preload_status")
    if status not in ("InProgress", "Completed"):
        return str(status or "-").lower()
    end = event.get("volume_preload_completed_at") if status == "Completed" else None
    seconds = seconds_between(event.get("volume_preload_started_at"), end, now)
    taken = "" if seconds is None else elapsed(seconds)
    if status == "InProgress":
        return f"loading, {taken}" if taken else "loading"
    return f"loaded in {taken}" if taken and end else "loaded"


def replica_row(item: Mapping[str, Any], key: str, event: Mapping[str, Any], now: datetime) -> list[str]:
    """One line of the replicas' table."""
    why = event.get("replica_status_message") or event.get("replica_status_reason") or ""
    ready_since = event.get("replica_ready_since")
    state = str(event.get("replica_status", "-"))
    revision = named_revision(item, event.get("revision_id"))
    return [key, state, age(ready_since, now), revision, "" if ready_since else str(why)]


def replica_count(item: Mapping[str, Any]) -> str:
    """`1/2`: ready of desired."""
    return f"{item.get('ready_replicas') or 0}/{item.get('desired_replicas') or 0}"


def gpu(item: Mapping[str, Any]) -> str:
    """`2 x h100-80gb`, or `-` on the CPU."""
    return f"{item['gpu_count']} x {item['gpu_type']}" if item.get("gpu_count") else "-"


def short_image(image: str | None) -> str:
    """The reference with as much of its digest as people compare."""
    name, at, digest = (image or "-").partition("@")
    return f"{name}{at}{digest[:DIGEST_SHOWN]}"


def example_call(url: str) -> str:
    """A call that can be pasted into a shell."""
    return (
        f"Call it with your API key and a payload of your worker's:\n"
        f'  curl {url} \\\n    -H "Authorization: Bearer $(jig auth key)" \\\n'
        f"    -H \"Content-Type: application/json\" -d '{{}}'"
    )


def indent(text: str) -> str:
    """Every line two spaces to the right."""
    return "\n".join(f"  {line}" for line in text.splitlines())
