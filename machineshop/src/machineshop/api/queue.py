"""The queue's routes: for those who submit, and for the workers."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.endpoint import Api, Call, iso
from machineshop.errors import InvalidRequest, NotCancelable
from machineshop.http import ANY_SCOPE, json_response
from machineshop.models import Job, Worker
from machineshop.services.queue import QueueService
from machineshop.states import JobState
from machineshop.store.jobs import Holder

DEFAULT_POLL_SECONDS = 5.0
# Below the idle time-outs of common proxies.
MAX_POLL_SECONDS = 60.0
MAX_CLAIM_SECONDS = 3600
MAX_HOSTNAME_LENGTH = 253
MAX_PROGRESS_AGE_SECONDS = 366 * 86400
PAYLOAD_LIMIT_BYTES = 1024 * 1024
RESULT_LIMIT_BYTES = 16 * 1024 * 1024

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


# Of a deployment or a job, by name or id: longer ones exist nowhere, and an error repeats them.
Name = Annotated[str, msgspec.Meta(max_length=255)]


class SubmitRequest(msgspec.Struct):
    """A job to store."""

    model: Name
    payload: msgspec.Raw
    priority: int = 0
    info: dict[str, Any] | None = None


class JobRequest(msgspec.Struct):
    """A job to act on."""

    model: Name
    request_id: Name


class ClearRequest(msgspec.Struct):
    """A queue to empty."""

    model: Name


class UpdateRequest(msgspec.Struct):
    """What a worker says of its job."""

    request_id: Name
    status: Name
    model: Name = ""
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    info: dict[str, Any] | None = None
    attempt_token: str | None = None
    progress_age_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_PROGRESS_AGE_SECONDS)] | None = None


def routes(api: Api, queue: QueueService) -> list[Route]:
    """All routes of this module; those that every job passes come first."""
    submit, status, cancel = _submit(queue), _status(queue), _cancel(queue)
    return [
        api.route("GET", "/internal/v1/queue/retrieve", _retrieve(queue), scopes=ANY_SCOPE),
        api.route(
            "POST",
            "/internal/v1/videos/status",
            _update(queue),
            scopes=ANY_SCOPE,
            body=UpdateRequest,
            body_limit_bytes=RESULT_LIMIT_BYTES,
        ),
        api.route("POST", "/v1/queue/submit", submit, body=SubmitRequest, body_limit_bytes=PAYLOAD_LIMIT_BYTES),
        api.route("GET", "/v1/queue/status", status, scopes=ANY_SCOPE),
        api.route("POST", "/v1/queue/cancel", cancel, body=JobRequest),
        api.route("POST", "/v1/queue/clear", _clear(queue), body=ClearRequest),
        api.route("GET", "/v1/queue/metrics", _metrics(queue), scopes=ANY_SCOPE),
        api.route("POST", "/v1/videos/generations", submit, body=SubmitRequest, body_limit_bytes=PAYLOAD_LIMIT_BYTES),
        api.route("GET", "/v1/videos/status", status, scopes=ANY_SCOPE),
        api.route("POST", "/v1/videos/cancel", cancel, body=JobRequest),
        api.route("GET", "/internal/v1/queue/status", _metrics(queue), scopes=ANY_SCOPE),
    ]


def _submit(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def submit(call: Call) -> Response:
        body: SubmitRequest = call.body
        job = await queue.submit(call.project_id, body.model, body.payload, body.priority, body.info)
        return json_response({"requestId": job.id, "request_id": job.id, "status": "pending"})

    return submit


def _status(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def status(call: Call) -> Response:
        job = await queue.status(call.project_id, call.required("model"), call.required("request_id"))
        return json_response(job_view(job))

    return status


def _cancel(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def cancel(call: Call) -> Response:
        body: JobRequest = call.body
        job = await queue.cancel(call.project_id, body.model, body.request_id)
        if job.state is JobState.CANCELED:
            return json_response({"status": "canceled"})
        note = "; its worker has been asked to stop" if job.cancel_requested else ""
        error = NotCancelable(state=job.state, note=note)
        fields = {"message": error.message, "type": "conflict_error", "param": None, "code": error.code}
        return json_response(
            {"status": job.state, "cancel_requested": job.cancel_requested, "error": fields, **fields},
            409,
            {"x-should-retry": "false"},
        )

    return cancel


def _clear(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def clear(call: Call) -> Response:
        return json_response({"canceled_count": await queue.clear(call.project_id, call.body.model)})

    return clear


def _metrics(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def metrics(call: Call) -> Response:
        counts = await queue.count(call.project_id, call.required("model"))
        running, waiting = counts.get(JobState.RUNNING, 0), counts.get(JobState.PENDING, 0)
        return json_response(
            {"messages_running": running, "messages_waiting": waiting, "total_jobs": running + waiting}
        )

    return metrics


def _retrieve(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def retrieve(call: Call) -> Response:
        deployment = await queue.worked_by(call.identity.key, call.required("model"))
        worker = Worker(
            hostname=call.required("hostname")[:MAX_HOSTNAME_LENGTH],
            replica_id=call.identity.key.replica_id,
            claim_timeout_seconds=_claim_timeout(call.query.get("claim_timeout")),
        )
        timeout_seconds = DEFAULT_POLL_SECONDS
        if "timeout" in call.query:
            timeout_seconds = min(parse_duration(call.query["timeout"], "timeout"), MAX_POLL_SECONDS)
        async for _ in call.request.stream():
            pass  # a poll has no body; what comes after it is the end of the connection
        claim = await queue.retrieve(deployment, worker, timeout_seconds, call.disconnected)
        if claim is None:
            return json_response({"data": None})
        job = claim.job
        return json_response(
            {
                "data": {
                    "request_id": job.id,
                    "model": job.model,
                    "payload": job.payload,
                    "priority": job.priority,
                    "info": job.info,
                    "retries": job.retries,
                    "attempt": job.attempt,
                    "attempt_token": claim.token,
                    "created_at": iso(job.created_at),
                    "claim_expires_at": iso(job.claim_expires_at),
                }
            }
        )

    return retrieve


def _update(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def update(call: Call) -> Response:
        body: UpdateRequest = call.body
        key = call.identity.key
        holder = Holder(deployment_id=key.deployment_id, replica_id=key.replica_id, token=body.attempt_token)
        cancel_requested = await _apply_update(queue, call.project_id, body, holder)
        # Exactly 200: some workers send anything else again.
        return json_response(
            {"request_id": body.request_id, "status": body.status, "cancel_requested": cancel_requested}
        )

    return update


async def _apply_update(queue: QueueService, project_id: str, body: UpdateRequest, holder: Holder) -> bool:
    info = body.info or {}
    match body.status:
        case "running":
            return await queue.renew(project_id, body.request_id, holder, info, body.progress_age_seconds)
        case "done":
            await queue.finish(project_id, body.request_id, holder, body.payload, info)
        case "failed":
            await queue.fail(project_id, body.request_id, holder, {"error": "The worker gave no reason.", **info})
        case "canceled":
            await queue.abandon(project_id, body.request_id, holder, info)
        case "pending":
            await queue.release(project_id, body.request_id, holder)
        case other:
            raise InvalidRequest(
                f"'{other}' is no status that a worker may report; use running, done, failed, canceled or pending.",
                param="status",
            )
    return False


def job_view(job: Job) -> dict[str, Any]:
    """A job for the wire."""
    return {
        "request_id": job.id,
        "model": job.model,
        "status": job.state,
        "priority": job.priority,
        "retries": job.retries,
        "attempt": job.attempt,
        "cancel_requested": job.cancel_requested,
        "inputs": job.payload,
        "outputs": job.outputs,
        "info": job.info,
        "error": job.info.get("error") if job.state is JobState.FAILED else None,
        "warnings": [],
        "created_at": iso(job.created_at),
        "claimed_at": iso(job.claimed_at),
        "progress_at": iso(job.progress_at),
        "done_at": iso(job.done_at),
    }


def parse_duration(text: str, param: str) -> float:
    """Seconds of a Go duration such as `5s`, `1m30s` or `250ms`; a bare number is seconds.

    Raises:
        InvalidRequest: It is neither.
    """
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    parts = _DURATION.findall(text) if len(text) <= 64 else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidRequest(f"'{param}' is '{text[:64]}', not a duration such as '5s' or '1m30s'.", param=param)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _claim_timeout(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= MAX_CLAIM_SECONDS:
        raise InvalidRequest(
            f"'claim_timeout' is '{text[:64]}'; it must be whole seconds from 1 to {MAX_CLAIM_SECONDS}.",
            param="claim_timeout",
        )
    return int(text)
