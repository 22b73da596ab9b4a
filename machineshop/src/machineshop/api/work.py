"""The queue's routes for workers: claims, and what they say of the jobs they hold."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.addresses import Addresses
from machineshop.api.described import work as described
from machineshop.api.durations import parse_duration, parse_number
from machineshop.api.endpoint import Api, Call
from machineshop.api.job_view import claim_view
from machineshop.bodies import pieces_of_body
from machineshop.errors import InvalidRequest, MachineshopError, MethodNotAllowed, PayloadTooLarge, status_of
from machineshop.http import WORK_SCOPES, JsonResponse, json_response
from machineshop.models import Claim, Deployment, Worker
from machineshop.services.queue import MAX_BATCH
from machineshop.services.submissions import check_object
from machineshop.services.work import WorkService
from machineshop.states import JobVerb
from machineshop.store.chunks import Chunks
from machineshop.store.moves import INFO_LIMIT_BYTES, Holder
from machineshop.store.turns import Told, Update

DEFAULT_POLL_SECONDS = 5.0
# Below the idle time-outs of common proxies.
MAX_POLL_SECONDS = 60.0
MAX_CLAIM_SECONDS = 3600
MAX_HOSTNAME_LENGTH = 253
MAX_ERROR_LENGTH = 10_000
# As random as a token, so that nobody has the same one by chance.
TURN_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
MAX_TURN_TRIES = 100
MAX_PROGRESS_AGE_SECONDS = 366 * 86400
RESULT_LIMIT_BYTES = 16 * 1024 * 1024
# Of one attempt: as many as fit into what it may give, and a number that every database can hold.
MAX_CHUNKS = 16 * 1024 * 1024
RESULTS_LIMIT_BYTES = 32 * 1024 * 1024

# What a worker reports, as verbs.
VERBS = {
    "running": JobVerb.RENEW,
    "done": JobVerb.FINISH,
    "failed": JobVerb.FAIL,
    "canceled": JobVerb.ABANDON,
    "pending": JobVerb.RELEASE,
}

# Of a deployment or a job, by name or id: longer ones exist nowhere, and an error repeats them.
Name = Annotated[str, msgspec.Meta(max_length=255)]


class UpdateRequest(msgspec.Struct):
    """What a worker says of its job."""

    request_id: Name
    status: Annotated[Name, msgspec.Meta(extra_json_schema={"enum": list(VERBS)})]
    model: Name = ""
    payload: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    info: dict[str, Any] | None = None
    attempt_token: str | None = None
    progress_age_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_PROGRESS_AGE_SECONDS)] | None = None


class GivenRequest(msgspec.Struct):
    """What a running job has given of its outputs; what else may stand in a payload is nobody's business here."""

    first: Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNKS)] = 0
    chunks: list[msgspec.Raw] = []


_GIVEN = msgspec.json.Decoder(GivenRequest)


class ClaimRequest(msgspec.Struct):
    """A worker's wish for jobs."""

    hostname: Annotated[str, msgspec.Meta(min_length=1)]
    claim_timeout: Annotated[int, msgspec.Meta(ge=1, le=MAX_CLAIM_SECONDS)] | None = None
    max_jobs: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)] = 1
    timeout: Name = "0s"


class TurnRequest(msgspec.Struct):
    """What a worker says of several jobs, and its wish for the next ones."""

    model: Name
    updates: Annotated[list[UpdateRequest], msgspec.Meta(max_length=MAX_BATCH)] = []
    claim: ClaimRequest | None = None


def routes(api: Api, work: WorkService, clock: Callable[[], float], addresses: Addresses) -> list[Route]:
    """All routes of this module."""
    return [
        api.route(
            "GET",
            "/internal/v1/queue/retrieve",
            _retrieve(work, addresses),
            scopes=WORK_SCOPES,
            operation=described.RETRIEVE,
        ),
        api.route(
            "POST",
            "/internal/v1/queue/updates",
            _take_turn(work, clock, addresses),
            scopes=WORK_SCOPES,
            body=TurnRequest,
            body_limit_bytes=RESULTS_LIMIT_BYTES,
            operation=described.UPDATES,
        ),
        api.route(
            "POST",
            "/internal/v1/videos/status",
            _update(work, clock, addresses),
            scopes=WORK_SCOPES,
            body=UpdateRequest,
            body_limit_bytes=RESULT_LIMIT_BYTES,
            operation=described.UPDATE,
        ),
    ]


def _retrieve(work: WorkService, addresses: Addresses) -> Callable[[Call], Awaitable[Response]]:
    async def retrieve(call: Call) -> Response:
        if call.request.method == "HEAD":  # a job that it claimed would never be seen by anyone
            raise MethodNotAllowed("HEAD", call.request.url.path, allowed="GET")
        deployment = await work.worked_by(call.identity.key, call.required("model"))
        worker = _worker(call, call.required("hostname"), _claim_timeout(call.query.get("claim_timeout")))
        timeout_seconds = DEFAULT_POLL_SECONDS
        if "timeout" in call.query:
            timeout_seconds = min(parse_duration(call.query["timeout"], "timeout"), MAX_POLL_SECONDS)
        several = "max_jobs" in call.query
        max_jobs = parse_number(call.query["max_jobs"], "max_jobs", least=1, most=MAX_BATCH) if several else 1
        async for _ in pieces_of_body(call.request.receive):
            pass  # a poll has no body; what comes after it is the end of the connection
        host = call.headers.get("host")

        def answered(claims: list[Claim]) -> JsonResponse:
            views = _claim_views(host, claims, addresses)
            if several:
                return json_response({"data": views})
            return json_response({"data": views[0] if views else None})

        return await _hand_out(work, call, deployment, worker, timeout_seconds, max_jobs, answered)

    return retrieve


def _update(
    work: WorkService, clock: Callable[[], float], addresses: Addresses
) -> Callable[[Call], Awaitable[Response]]:
    async def update(call: Call) -> Response:
        body: UpdateRequest = call.body
        body.payload = addresses.from_worker(call.headers.get("host"), body.payload)
        told = await work.update(call.project_id, _holder(call), _said(body, clock()))
        # Exactly 200: some workers send anything else again.
        return json_response(_answer(body, told))

    return update


def _take_turn(
    work: WorkService, clock: Callable[[], float], addresses: Addresses
) -> Callable[[Call], Awaitable[Response]]:
    async def take_turn(call: Call) -> Response:
        body: TurnRequest = call.body
        key = call.identity.key
        deployment = await work.worked_by(key, body.model)
        worker = None if body.claim is None else _worker(call, body.claim.hostname, body.claim.claim_timeout)
        host = call.headers.get("host")
        if worker is not None and body.claim is not None and not body.updates:
            timeout_seconds = min(parse_duration(body.claim.timeout, "claim.timeout"), MAX_POLL_SECONDS)

            def answered(claims: list[Claim]) -> JsonResponse:
                return _turn_response([], _claim_views(host, claims, addresses))

            return await _hand_out(work, call, deployment, worker, timeout_seconds, body.claim.max_jobs, answered)
        for update in body.updates:
            update.payload = addresses.from_worker(host, update.payload)
        # One that makes no sense is refused by itself, as one that is stale is.
        said = [_try_said(update, clock()) for update in body.updates]
        sound = [update for update in said if isinstance(update, Update)]
        max_jobs = 0 if body.claim is None else body.claim.max_jobs
        turn = await work.take_turn(call.project_id, deployment, _holder(call), sound, worker, max_jobs)
        answers = iter(turn.told)
        outcomes = [next(answers) if isinstance(update, Update) else Told(error=update) for update in said]
        return _turn_response(
            [_answer(update, outcome) for update, outcome in zip(body.updates, outcomes, strict=True)],
            _claim_views(host, turn.handed, addresses),
        )

    return take_turn


async def _hand_out(
    work: WorkService,
    call: Call,
    deployment: Deployment,
    worker: Worker,
    timeout_seconds: float,
    max_jobs: int,
    answered: Callable[[list[Claim]], JsonResponse],
) -> Response:
    """Answer a worker with its next jobs; one that has waited is answered from where its job came in."""
    sent: JsonResponse | None = None

    def answer(claims: list[Claim]) -> bool:
        nonlocal sent
        response = answered(claims)
        if call.answer_at_once(response):
            sent = response
        return sent is not None

    claims = await work.retrieve(deployment, worker, timeout_seconds, call.disconnected, max_jobs, answer)
    return sent or answered(claims)


def _turn_response(updates: list[dict[str, Any]], claims: list[dict[str, Any]]) -> JsonResponse:
    return json_response({"updates": updates, "data": claims})


def _claim_views(host: str | None, claims: Sequence[Claim], addresses: Addresses) -> list[dict[str, Any]]:
    return [claim_view(claim, addresses.for_worker(host, claim.job.payload)) for claim in claims]


def _answer(request: UpdateRequest, told: Told) -> dict[str, Any]:
    if told.error is None:
        return {
            "request_id": request.request_id,
            "status": request.status,
            "cancel_requested": told.cancel_requested,
        }
    status, kind = status_of(told.error)
    error = {"message": told.error.message, "type": kind, "param": told.error.param, "code": told.error.code}
    return {"request_id": request.request_id, "http_status": status, "error": error}


def _holder(call: Call) -> Holder:
    key = call.identity.key
    return Holder(deployment_id=key.deployment_id, replica_id=key.replica_id)


def _worker(call: Call, hostname: str, claim_timeout_seconds: int | None) -> Worker:
    """Who claims, and whether that is a claim which was not answered before.

    Raises:
        InvalidRequest: The headers that say so make no sense.
    """
    turn_id, tries = call.headers.get("x-turn-id"), 0
    if turn_id is not None:
        if not TURN_ID.fullmatch(turn_id):
            raise InvalidRequest("'x-turn-id' has 16 to 64 letters, digits, '_' and '-'.", param="x-turn-id")
        tries = parse_number(call.headers.get("x-turn-tries", "0"), "x-turn-tries", least=0, most=MAX_TURN_TRIES)
    return Worker(
        hostname=hostname[:MAX_HOSTNAME_LENGTH],
        replica_id=call.identity.key.replica_id,
        claim_timeout_seconds=claim_timeout_seconds,
        turn_id=turn_id,
        asks_again=tries > 0,
    )


def _try_said(request: UpdateRequest, now: float) -> Update | MachineshopError:
    if "\0" in request.request_id or "\0" in (request.attempt_token or ""):
        return InvalidRequest("'request_id' and 'attempt_token' hold no zero character.", param="request_id")
    size = len(bytes(request.payload))
    if size > RESULT_LIMIT_BYTES:
        return PayloadTooLarge(what="'payload'", limit_bytes=RESULT_LIMIT_BYTES, mend="Give large outputs as files.")
    try:
        return _said(request, now)
    except (InvalidRequest, PayloadTooLarge) as error:
        return error


def _said(request: UpdateRequest, now: float) -> Update:
    """What a worker says, in our words.

    Raises:
        InvalidRequest: The status is none, or the outputs are no object.
    """
    verb = VERBS.get(request.status)
    if verb is None:
        raise InvalidRequest(
            f"'{request.status}' is no status that a worker may report; use {', '.join(VERBS)}.", param="status"
        )
    info = request.info or {}
    if verb is JobVerb.FAIL:
        info = {"error": "The worker gave no reason.", **info}
        if len(msgspec.json.encode(info)) > INFO_LIMIT_BYTES:  # that it failed is known all the same
            info = {"error": str(info["error"])[:MAX_ERROR_LENGTH]}
    elif info and len(msgspec.json.encode(info)) > INFO_LIMIT_BYTES:
        raise PayloadTooLarge(what="'info'", limit_bytes=INFO_LIMIT_BYTES, mend="Put what is large into the outputs.")
    if verb is JobVerb.FINISH:
        check_object(request.payload, "payload")
    given = _given(request.payload) if verb is JobVerb.RENEW else None
    age = request.progress_age_seconds
    return Update(
        verb=verb,
        job_id=request.request_id,
        token=request.attempt_token,
        info=info,
        outputs=request.payload,
        given=given,
        progress_at=None if age is None else now - age,
    )


def _given(payload: msgspec.Raw) -> Chunks | None:
    """What a running job has given of its outputs; None for a mere sign of life.

    Raises:
        InvalidRequest: It is not understood.
    """
    if b'"chunks"' not in bytes(payload) or not bytes(payload).lstrip().startswith(b"{"):
        return None  # Nobody has ever looked at what a sign of life carries, and some workers may send anything.
    try:
        said = _GIVEN.decode(payload)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(
            f'A running job\'s \'payload\' is {{"first", "chunks"}}: {error}', param="payload"
        ) from None
    return Chunks(said.first, said.chunks) if said.chunks else None


def _claim_timeout(text: str | None) -> int | None:
    if text is None:
        return None
    return parse_number(text, "claim_timeout", least=1, most=MAX_CLAIM_SECONDS)
