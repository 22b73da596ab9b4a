"""How a request over HTTP is answered once it is known how its predict ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler

from .job import Job
from .outcome import Canceled, Done, Failed, HandedBack, Outcome

NOT_TAKEN_HEADER = "X-Sprocket-Not-Taken"
"""On a 503 for a request that was not begun with: why. The platform's gateway gives it to another worker, or later."""


class Refusal(NamedTuple):
    """Why there are no outputs."""

    status: int
    message: str
    code: str
    path: Sequence[str | int] = ()

    def body(self) -> dict[str, Any]:
        """Give it as JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        param = ".".join(map(str, self.path)) or None
        return {"error": {"message": self.message, "type": kind, "param": param, "code": self.code}}


def answer_for(outcome: Outcome, job: Job) -> web.Response:
    """Give the answer to a request."""
    headers = {"X-Request-ID": job.id}
    if isinstance(outcome, Done):
        return web.Response(text=outcome.outputs.text(), content_type="application/json", headers=headers)
    return refused(refusal_of(outcome), headers)


def not_taken(refusal: Refusal) -> web.Response:
    """Say that the request was not begun with, and may go to anybody."""
    return refused(refusal, {NOT_TAKEN_HEADER: refusal.code})


def refused(refusal: Refusal, headers: dict[str, str] | None = None) -> web.Response:
    """Give an answer without outputs."""
    return web.json_response(refusal.body(), status=refusal.status, headers=headers)


@web.middleware
async def routed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a path that is not there, and a method that a path does not have, in JSON as everything else."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        paths = ", ".join(sorted(resource.canonical for resource in request.app.router.resources()))
        return refused(Refusal(404, f"there is no path {request.path}; this worker has {paths}", "not_found"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not allowed at {request.path}, which takes {allowed}"
        return refused(Refusal(405, message, "method_not_allowed"), {"Allow": allowed})


def refusal_of(outcome: Outcome) -> Refusal:
    """Say why a predict that is not done has no outputs."""
    if isinstance(outcome, Canceled):
        return Refusal(500, "the request was cancelled", "canceled")
    if isinstance(outcome, Failed) and outcome.input_path is not None:
        return Refusal(422, outcome.error, "invalid_input", outcome.input_path)
    if isinstance(outcome, Failed):
        return Refusal(500, outcome.error, "predict_failed")
    if isinstance(outcome, HandedBack):
        return Refusal(503, "the model is being ended; try again", "model_ended")
    return Refusal(500, "the worker has ended", "worker_exited")
