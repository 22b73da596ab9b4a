"""Why a job waits, told from its deployment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jig.units import count


def why_pending(deployment: Mapping[str, Any]) -> str:
    """One line: `pending: no replica is ready (Failed: ...)`."""
    return f"pending: {reason(deployment)}"


def has_ready_replica(deployment: Mapping[str, Any]) -> bool:
    """True where somebody may take the job."""
    return bool(deployment.get("ready_replicas"))


def reason(deployment: Mapping[str, Any]) -> str:
    """What keeps a job of this deployment from being taken, as far as its replicas tell."""
    ready = deployment.get("ready_replicas") or 0
    if ready == 1:
        return "1 replica is ready and busy, or does not work the queue (its command needs --queue)"
    if ready:
        return f"{count(ready, 'replica')} are ready and busy, or do not work the queue (their command needs --queue)"
    if not deployment.get("desired_replicas"):
        return "no replica is asked for: min_replicas is 0"
    message = str(deployment.get("status_message") or "").rstrip(".")
    status = str(deployment.get("status") or "")
    return f"no replica is ready ({': '.join(part for part in (status, message) if part)})"
