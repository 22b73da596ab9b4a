"""Following a deployment until it is ready, and what there is to say where it does not get so."""

from __future__ import annotations

import re
import time
from typing import Any

from jig.client import Client
from jig.deployment import revision_of
from jig.errors import DeployError, PlatformError, WatchInterruptedError
from jig.live import TrackingView
from jig.output import Output
from jig.patience import Looks
from jig.session import Session
from jig.tracking import CRASH_REASONS, IMAGE_REASONS, Tracking, Verdict, goes_on_serving, is_settled, track, went_back

FAST_POLL_SECONDS = 0.2
SLOW_POLL_SECONDS = 1.0
FAST_POLLING_SECONDS = 15.0  # what is ready quickly should be seen quickly; after that nobody counts tenths
LOG_LINES_SHOWN = 20
WAY_BACK_SECONDS = 60.0  # the platform gives what may be a hiccup 15 s before it goes back, and may be busy
NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")


def wait_until_ready(
    session: Session, deployment: dict[str, Any], timeout_seconds: float
) -> tuple[Tracking, dict[str, Any]]:
    """Follow the rollout until it is ready.

    Raises:
        DeployError: it will not get ready; the last log lines of the replica have been shown. Or the platform is away
            for too long.
        WatchInterruptedError: Ctrl-C; the rollout goes on.
    """
    name, client, output = str(deployment["name"]), session.client, session.output
    more = f"See how it goes: jig status {name}"
    meanwhile = f"{name} is being deployed; whether it gets ready is not known."
    looks = Looks(client, f"/v1/deployments/{name}", output.note, meanwhile=meanwhile, hint=more)
    started_at = looks.now()
    tracking = Tracking(revision_of(deployment), started_at, timeout_seconds)
    view = TrackingView(output)
    try:
        with view.shown():
            while True:
                tracking = track(tracking, deployment, looks.now())
                view.update(tracking, looks.now())
                if tracking.verdict is not Verdict.WAITING:
                    break
                quick = looks.now() - started_at < FAST_POLLING_SECONDS
                time.sleep(FAST_POLL_SECONDS if quick else SLOW_POLL_SECONDS)
                deployment = looks.look()
    except KeyboardInterrupt as error:
        raise WatchInterruptedError(f"{name} is still being deployed.", hint=more) from error
    if tracking.verdict is Verdict.FAILED:
        show_logs(client, output, name, tracking.failed_replica)
        if is_given_up_by_platform(tracking, deployment):
            deployment = after_the_way_back(looks, deployment, tracking)
        raise DeployError(tracking.reason, hint=after_failure(name, deployment, tracking))
    return tracking, deployment


def after_failure(name: str, deployment: dict[str, Any], tracking: Tracking) -> str:
    """What still serves, and where to read on."""
    back = went_back(deployment, tracking.revision)
    said = back if back and back not in tracking.reason else goes_on_serving(deployment, tracking.revision)
    more = f"More: jig logs {name}, jig status {name}"
    return f"{said}\n{more}" if said else more


def is_given_up_by_platform(tracking: Tracking, deployment: dict[str, Any]) -> bool:
    """True where the platform goes back by itself, and has not yet."""
    is_broken = any(each.reason in CRASH_REASONS | IMAGE_REASONS for each in tracking.replicas)
    is_wanted = revision_of(deployment) == tracking.revision
    return bool(deployment.get("rollback_on_failure")) and is_wanted and is_broken


def after_the_way_back(looks: Looks, deployment: dict[str, Any], tracking: Tracking) -> dict[str, Any]:
    """The deployment once the platform has said what became of the revision, or as it is after a while."""
    until = looks.now() + WAY_BACK_SECONDS
    while not is_settled(deployment, tracking.revision) and looks.now() < until:
        time.sleep(FAST_POLL_SECONDS)
        deployment = looks.look()
    return deployment


def show_logs(client: Client, output: Output, name: str, replica: str | None) -> None:
    """The last log lines of the replica that failed; without one, or without any lines, there is nothing to say."""
    if replica is None:
        return
    try:
        answer = client.get(f"/v1/deployments/{name}/logs", replica_id=replica, tail=LOG_LINES_SHOWN)
    except PlatformError:
        return
    lines = once((answer.get("lines") or [])[-LOG_LINES_SHOWN:])
    if lines:
        output.note(f"The last log lines of replica {replica}:")
    for line in lines:
        output.note(f"  {line}", "dim")


def once(lines: list[str]) -> list[str]:
    """The lines without what a replica that was started again has printed before, at other times."""
    alike = [NUMBERS.sub("0", line) for line in lines]
    period = next((each for each in range(1, len(lines)) if alike[each:] == alike[:-each]), len(lines))
    return lines[-period:]
