"""A deployment's parts for the wire: its configuration, its replicas, and its revisions' events and failures."""

from collections.abc import Mapping
from typing import Any

import msgspec

from machineshop.api.endpoint import iso
from machineshop.models import DeploymentConfig, RevisionEvent, RevisionFailure
from machineshop.runtime.base import Replica


def config_view(config: DeploymentConfig, expiries: Mapping[str, float | None]) -> dict[str, Any]:
    """What is to run; `expiries` says when the secrets that it names expire."""
    view: dict[str, Any] = msgspec.to_builtins(config)
    for variable in view["environment_variables"]:
        expires_at = expiries.get(variable.get("value_from_secret", ""))
        if expires_at is not None:
            variable["value_from_secret_expires_at"] = iso(expires_at)
    return view


def replica_view(replica: Replica, revision_number: int | None) -> dict[str, Any]:
    """A replica, and what last happened to it; the number of a revision that is no longer kept is not known."""
    return {
        "replica_status": replica.status,
        "replica_status_reason": replica.reason,
        "replica_status_message": replica.message,
        "replica_ready_since": iso(replica.ready_since),
        "revision_id": replica.revision_id,
        "revision_number": revision_number,
        "image": replica.image,
        "replica_port": replica.port,
        "restarts": replica.restarts,
        "volume_preload_status": replica.volume_preload_status,
        "volume_preload_started_at": iso(replica.volume_preload_started_at),
        "volume_preload_completed_at": iso(replica.volume_preload_completed_at),
    }


def event_view(event: RevisionEvent) -> dict[str, Any]:
    """A revision that was put to work."""
    return {
        "object": "revision_event",
        "event_number": event.number,
        "revision_number": event.revision_number,
        "revision_id": event.revision_id,
        "action": event.action,
        "activated_at": iso(event.activated_at),
        "image": event.image,
        "ready_at": iso(event.ready_at),
        "failure": None if event.failure is None else failure_view(event.failure),
    }


def failure_view(failure: RevisionFailure) -> dict[str, Any]:
    """Why a revision did not get ready."""
    return {
        "reason": failure.reason,
        "message": failure.message,
        "replica_id": failure.replica_id,
        "log": failure.log,
        "failed_at": iso(failure.failed_at),
        "rolled_back": failure.rolled_back,
    }
