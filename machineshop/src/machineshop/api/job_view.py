"""A job for the wire."""

from typing import Any

from machineshop.api.endpoint import iso
from machineshop.models import Claim, Include, Job
from machineshop.services.waiting import Place
from machineshop.states import JobState


def job_view(job: Job, include: Include = Include.PAYLOAD) -> dict[str, Any]:
    """A job as everybody sees it."""
    view: dict[str, Any] = {
        "request_id": job.id,
        "model": job.model,
        "status": job.state,
        "priority": job.priority,
        "fair_key": job.fair_key or None,
        "retries": job.retries,
        "attempt": job.attempt,
        "cancel_requested": job.cancel_requested,
        "inputs": job.payload if include is Include.PAYLOAD else None,
        "outputs": job.outputs if include is not Include.NONE else None,
        "info": job.info,
        "error": job.info.get("error") if job.state is JobState.FAILED else None,
        "warnings": [],
        "resubmit_of": job.resubmit_of,
        "created_at": iso(job.created_at),
        "deadline_at": iso(job.deadline_at),
        "claimed_at": None if job.state is JobState.PENDING else iso(job.claimed_at),
        "progress_at": iso(job.progress_at),
        "done_at": iso(job.done_at),
    }
    if job.webhook_url is not None:
        view["webhook_url"] = job.webhook_url
    return view


def progress_age_seconds(job: Job, now: float) -> float | None:
    """How long a running job's worker has seen no progress; None where none has been told of."""
    if job.state is not JobState.RUNNING or job.progress_at is None:
        return None
    return round(max(0.0, now - job.progress_at), 3)


def place_view(place: Place) -> dict[str, Any]:
    """Where a pending job stands, as everybody sees it."""
    estimate = place.estimate
    return {
        "position": place.position,
        "reason": place.reason,
        "message": place.message,
        "ready_replicas": place.ready_replicas,
        "running": place.running,
        "estimate": None
        if estimate is None
        else {
            "start_at": iso(estimate.start_at),
            "earliest_at": iso(estimate.earliest_at),
            "latest_at": iso(estimate.latest_at),
            "from_jobs": estimate.from_jobs,
        },
    }


def claim_view(claim: Claim, payload: object) -> dict[str, Any]:
    """A claim as its worker sees it, with the job's payload as it can use it."""
    job = claim.job
    return {
        "request_id": job.id,
        "model": job.model,
        "payload": payload,
        "priority": job.priority,
        "info": job.info,
        "retries": job.retries,
        "attempt": job.attempt,
        "attempt_token": claim.token,
        "created_at": iso(job.created_at),
        "claim_expires_at": iso(job.claim_expires_at),
    }
