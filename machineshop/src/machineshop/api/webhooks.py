"""Webhooks: the secret that receivers check them with, and what became of those of a job."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.described import webhooks as described
from machineshop.api.endpoint import Api, Call, iso
from machineshop.http import USER_SCOPES, json_response
from machineshop.services.signing import SigningSecrets, SigningService
from machineshop.services.webhooks import WebhookService
from machineshop.store.webhooks import Webhook


def routes(api: Api, webhooks: WebhookService, signing: SigningService) -> list[Route]:
    """All routes of this module."""
    return [
        api.route("GET", "/v1/queue/webhooks", _of_job(webhooks), operation=described.OF_JOB),
        api.route("GET", "/v1/webhooks/secret", _secret(signing), scopes=USER_SCOPES, operation=described.SECRET),
        api.route(
            "POST",
            "/v1/webhooks/secret/rotate",
            _rotate(signing),
            action="webhook_secret.rotate",
            operation=described.ROTATE,
        ),
    ]


def _of_job(webhooks: WebhookService) -> Callable[[Call], Awaitable[Response]]:
    async def of_job(call: Call) -> Response:
        found = await webhooks.of_job(call.project_id, call.required("model"), call.required("request_id"))
        return json_response({"object": "list", "data": [webhook_view(webhook) for webhook in found]})

    return of_job


def _secret(signing: SigningService) -> Callable[[Call], Awaitable[Response]]:
    async def secret(call: Call) -> Response:
        return _secret_response(await signing.of_project(call.project_id))

    return secret


def _rotate(signing: SigningService) -> Callable[[Call], Awaitable[Response]]:
    async def rotate(call: Call) -> Response:
        rotated = await signing.rotate(call.project_id)
        call.changed("webhook secret")
        return _secret_response(rotated)

    return rotate


def _secret_response(secrets: SigningSecrets) -> Response:
    shown = {"secret": secrets.current, "previous_signs_until": iso(secrets.previous_until)}
    return json_response(shown, headers={"Cache-Control": "no-store"})


def webhook_view(webhook: Webhook) -> dict[str, Any]:
    """What became of a webhook, as everybody sees it."""
    return {
        "state": webhook.state,
        "attempt": webhook.attempt,
        "url": webhook.url,
        "tries": webhook.tries,
        "delivered_at": iso(webhook.delivered_at),
        "next_try_at": iso(webhook.next_try_at),
        "error": webhook.error,
    }
