"""The queue's routes for those who submit; `work` has those for workers, `job_status` says how a job stands."""

import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.described import queue as described
from machineshop.api.durations import parse_number, parse_time
from machineshop.api.endpoint import Api, Call
from machineshop.api.job_view import job_view
from machineshop.errors import InvalidRequest, NotCancelable
from machineshop.http import ANY_SCOPE, VIEWER_SCOPES, json_response
from machineshop.models import FairKey, Include, QueueSettings
from machineshop.services.malformed import malformed
from machineshop.services.queue import CANCEL_GRACE_SECONDS, MAX_BATCH, MAX_CANCEL_GRACE_SECONDS, QueueService
from machineshop.services.submissions import Submission, Submitted
from machineshop.states import JobState
from machineshop.store.jobs import JobFilter

# An array of submissions; each payload has its own, smaller limit.
SUBMIT_LIMIT_BYTES = 16 * 1024 * 1024
DEFAULT_PAGE = 50

# Of a deployment or a job, by name or id: longer ones exist nowhere, and an error repeats them.
Name = Annotated[str, msgspec.Meta(max_length=255)]
Keys = Annotated[
    dict[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], FairKey | None], msgspec.Meta(max_length=10_000)
]
Names = Annotated[list[Name], msgspec.Meta(max_length=MAX_BATCH)]
SomeNames = Annotated[list[Name], msgspec.Meta(max_length=MAX_BATCH, extra_json_schema={"minItems": 1})]
_SETTINGS = msgspec.json.Decoder(QueueSettings)


class CancelRequest(msgspec.Struct):
    """A job to take back."""

    model: Name
    request_id: Name
    grace_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_CANCEL_GRACE_SECONDS)] = CANCEL_GRACE_SECONDS


class JobsRequest(msgspec.Struct):
    """Several jobs."""

    model: Name
    request_ids: SomeNames


class ResultsRequest(msgspec.Struct):
    """Several jobs to look at."""

    model: Name
    request_ids: Names
    include: Include = Include.PAYLOAD


class ClearRequest(msgspec.Struct):
    """A queue to empty."""

    model: Name


class SettingsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a queue's settings."""

    max_pending: int | msgspec.UnsetType = msgspec.UNSET
    max_running_per_key: int | msgspec.UnsetType | None = msgspec.UNSET
    keep_seconds: int | msgspec.UnsetType = msgspec.UNSET
    keep_count: int | msgspec.UnsetType = msgspec.UNSET
    keys: Keys | msgspec.UnsetType = msgspec.UNSET


def routes(api: Api, queue: QueueService, status: Callable[[Call], Awaitable[Response]]) -> list[Route]:
    """All routes of this module; those that every job passes come first. `status` answers what `job_status` says."""
    route = api.route
    submit, cancel = _submit(queue), _cancel(queue)
    submission: dict[str, Any] = {"body": Submission | list[Submission], "body_limit_bytes": SUBMIT_LIMIT_BYTES}
    submission["operation"] = described.SUBMIT
    look: dict[str, Any] = {"scopes": ANY_SCOPE, "operation": described.STATUS}
    take_back: dict[str, Any] = {"body": CancelRequest, "operation": described.CANCEL}
    results: dict[str, Any] = {"scopes": VIEWER_SCOPES, "body": ResultsRequest, "operation": described.RESULTS}
    again: dict[str, Any] = {"body": JobsRequest, "operation": described.RESUBMIT}
    clear: dict[str, Any] = {"body": ClearRequest, "action": "queue.clear", "operation": described.CLEAR}
    change: dict[str, Any] = {"body": SettingsRequest, "action": "queue.change_settings"}
    change["operation"] = described.CHANGE_SETTINGS
    count: dict[str, Any] = {"scopes": ANY_SCOPE, "operation": described.METRICS}
    return [
        route("POST", "/v1/queue/submit", submit, **submission),
        route("GET", "/v1/queue/status", status, **look),
        route("POST", "/v1/queue/results", _results(queue), **results),
        route("GET", "/v1/queue/jobs", _list(queue), operation=described.JOBS),
        route("POST", "/v1/queue/cancel", cancel, **take_back),
        route("POST", "/v1/queue/resubmit", _resubmit(queue), **again),
        route("POST", "/v1/queue/clear", _clear(queue), **clear),
        route("GET", "/v1/queue/settings", _settings(queue), operation=described.SETTINGS),
        route("PATCH", "/v1/queue/settings", _change_settings(queue), **change),
        route("GET", "/v1/queue/metrics", _metrics(queue), **count),
        route("POST", "/v1/videos/generations", submit, **submission),
        route("GET", "/v1/videos/status", status, **look),
        route("POST", "/v1/videos/cancel", cancel, **take_back),
        route("GET", "/internal/v1/queue/status", _metrics(queue), **count),
    ]


def _submit(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def submit(call: Call) -> Response:
        if isinstance(call.body, list):
            submitted = await queue.submit_many(call.project_id, call.body)
            return _listed([_submitted_view(one) for one in submitted])
        return json_response(_submitted_view(await queue.submit(call.project_id, call.body)))

    return submit


def _submitted_view(submitted: Submitted) -> dict[str, Any]:
    job = submitted.job
    if submitted.duplicate:
        return {"requestId": job.id, "request_id": job.id, "status": job.state, "duplicate": True}
    # Pending is what it was when it was stored, though a worker may have it by now.
    return {"requestId": job.id, "request_id": job.id, "status": "pending"}


def _results(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def results(call: Call) -> Response:
        body: ResultsRequest = call.body
        found = await queue.results(call.project_id, body.model, body.request_ids, body.include)
        return _listed([job_view(job, body.include) for job in found])

    return results


def _list(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def list_jobs(call: Call) -> Response:
        query = call.query
        limit = parse_number(query.get("limit", str(DEFAULT_PAGE)), "limit", least=1, most=MAX_BATCH)
        include = _include(query.get("include", Include.PAYLOAD))
        chosen = JobFilter(
            states=_states(query.get("status")),
            fair_key=query.get("fair_key"),
            created_after=_time(call, "created_after"),
            created_before=_time(call, "created_before"),
        )
        before = _decode_cursor(query["cursor"]) if query.get("cursor") else None
        page = await queue.list_page(call.project_id, call.required("model"), chosen, before, limit, include)
        cursor = _encode_cursor(page.jobs[-1].sequence) if page.more else None
        data = [job_view(job, include) for job in page.jobs]
        return json_response({"object": "list", "data": data, "next_cursor": cursor})

    return list_jobs


def _cancel(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def cancel(call: Call) -> Response:
        body: CancelRequest = call.body
        job = await queue.cancel(call.project_id, body.model, body.request_id, body.grace_seconds)
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


def _resubmit(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def resubmit(call: Call) -> Response:
        body: JobsRequest = call.body
        again = await queue.resubmit(call.project_id, body.model, body.request_ids)
        return _listed(
            [
                {"requestId": job.id, "request_id": job.id, "resubmit_of": job.resubmit_of, "status": "pending"}
                for job in again
            ]
        )

    return resubmit


def _clear(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def clear(call: Call) -> Response:
        return json_response({"canceled_count": await queue.clear(call.project_id, call.body.model)})

    return clear


def _settings(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def settings(call: Call) -> Response:
        model = call.required("model")
        return _settings_response(model, await queue.settings(call.project_id, model))

    return settings


def _change_settings(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def change_settings(call: Call) -> Response:
        model = call.required("model")
        changed = {
            name: value for name, value in msgspec.structs.asdict(call.body).items() if value is not msgspec.UNSET
        }
        keys = changed.pop("keys", {})
        body = msgspec.json.encode(changed)
        try:  # the bounds are those of the settings themselves
            _SETTINGS.decode(body)
        except msgspec.ValidationError as error:
            raise malformed(error, body, _SETTINGS) from None
        before = await queue.settings(call.project_id, model)
        after = await queue.change_settings(call.project_id, model, changed, keys)
        call.changed(model, before=msgspec.to_builtins(before), after=msgspec.to_builtins(after))
        return _settings_response(model, after)

    return change_settings


def _settings_response(model: str, settings: QueueSettings) -> Response:
    return json_response({"model": model, **msgspec.structs.asdict(settings)})


def _metrics(queue: QueueService) -> Callable[[Call], Awaitable[Response]]:
    async def metrics(call: Call) -> Response:
        # A worker key counts those of its own deployment.
        of = call.identity.key.deployment_id
        counts = await queue.count(call.project_id, call.required("model"), of=of)
        return json_response(
            {
                "messages_running": counts.running,
                "messages_waiting": counts.pending,
                "total_jobs": counts.running + counts.pending,
            }
        )

    return metrics


def _listed(data: list[dict[str, Any]]) -> Response:
    return json_response({"object": "list", "data": data})


def _states(text: str | None) -> frozenset[JobState]:
    try:
        return frozenset(JobState(name) for name in text.split(",")) if text else frozenset()
    except ValueError:
        raise InvalidRequest(
            f"'status' is '{(text or '')[:64]}'; it must be some of {', '.join(JobState)}, with commas.", param="status"
        ) from None


def _include(text: str) -> Include:
    try:
        return Include(text)
    except ValueError:
        raise InvalidRequest(
            f"'include' is '{text[:64]}'; it must be one of {', '.join(Include)}.", param="include"
        ) from None


def _time(call: Call, param: str) -> float | None:
    return parse_time(call.query[param], param) if call.query.get(param) else None


def _encode_cursor(sequence: int) -> str:
    return base64.urlsafe_b64encode(f"s{sequence}".encode()).decode().rstrip("=")


def _decode_cursor(text: str) -> int:
    try:
        decoded = base64.urlsafe_b64decode(text[:64] + "==").decode()
    except (ValueError, binascii.Error):
        decoded = ""
    if not re.fullmatch(r"s[0-9]{1,18}", decoded):
        raise InvalidRequest(
            "'cursor' is none that we gave: pass on the 'next_cursor' of the page before, as it is.", param="cursor"
        )
    return int(decoded[1:])
