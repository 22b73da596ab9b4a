"""How one job stands: the job, why it waits, the chunks it has given, and what became of its webhook."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from machineshop.api.endpoint import Api, Call
from machineshop.api.job_view import job_view, place_view, progress_age_seconds
from machineshop.api.webhooks import webhook_view
from machineshop.errors import NotFound
from machineshop.http import ANY_SCOPE, json_response
from machineshop.models import Job
from machineshop.services.place import Places
from machineshop.services.queue import QueueService
from machineshop.services.webhooks import WebhookService
from machineshop.states import JobState


class _Elsewhere(Response):
    """The answer of another application."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have it answered there."""
        await self._app(scope, receive, send)


def handler(
    api: Api,
    queue: QueueService,
    places: Places,
    webhooks: WebhookService,
    guard: Callable[[Iterable[Route]], list[Route]] | None = None,
) -> Callable[[Call], Awaitable[Response]]:
    """What answers `GET /v1/queue/status`.

    `guard` has routes answered by the server that knows the replicas, where that may be another one.
    """

    async def with_place(call: Call) -> Response:
        job = await _asked_for(queue, call)
        place = await places.find(job) if job.state is JobState.PENDING else None
        return await answer(job, None if place is None else place_view(place))

    async def answer(job: Job, place: dict[str, Any] | None) -> Response:
        webhook = await webhooks.of_ended(job)
        return json_response(
            {
                **job_view(job),
                "progress_age_seconds": progress_age_seconds(job, time.time()),
                "chunks": await queue.given(job) or None,
                "queue": place,
                "webhook": None if webhook is None else webhook_view(webhook),
            }
        )

    if guard is None:
        return with_place
    # Why a job waits depends on the replicas; all else lies in the store, and is answered here.
    pending = guard([api.route("GET", "/v1/queue/status", with_place, scopes=ANY_SCOPE)])[0].app

    async def status(call: Call) -> Response:
        job = await _asked_for(queue, call)
        if job.state is JobState.PENDING:
            return _Elsewhere(pending)
        return await answer(job, None)

    return status


async def _asked_for(queue: QueueService, call: Call) -> Job:
    """The job of a request for its status; a worker key sees those of its own deployment."""
    job = await queue.status(call.project_id, call.required("model"), call.required("request_id"))
    if call.identity.key.deployment_id not in {None, job.deployment_id}:
        raise NotFound(what="job", id=job.id)
    return job
