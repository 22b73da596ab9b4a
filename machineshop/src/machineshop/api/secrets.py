"""The routes of secrets. No answer ever holds a value."""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.described import secrets as described
from machineshop.api.endpoint import Api, Call, iso
from machineshop.http import json_response
from machineshop.models import Secret
from machineshop.services.secret_rules import SecretFields
from machineshop.services.secrets import SecretService

# A value of the largest size, with every character escaped.
BODY_LIMIT_BYTES = 512 * 1024


def routes(api: Api, secrets: SecretService) -> list[Route]:
    """All routes of this module; they come before those of deployments, which would take them for one's name."""
    pages = _Secrets(secrets)
    written: dict[str, Any] = {"body": SecretFields, "body_limit_bytes": BODY_LIMIT_BYTES}
    found: list[Route] = []
    for base in ("/v1/deployments/secrets", "/v1/secrets"):
        one = f"{base}/{{secret:path}}"  # a name may hold slashes
        say = described.operations(base)
        found += [
            api.route("GET", base, pages.list_all, operation=say["LIST"]),
            api.route("POST", base, pages.create, **written, action="secret.create", operation=say["POST"]),
            api.route("GET", one, pages.get, operation=say["GET"]),
            api.route("PATCH", one, pages.update, **written, action="secret.update", operation=say["PATCH"]),
            api.route("DELETE", one, pages.delete, action="secret.delete", operation=say["DELETE"]),
        ]
    return found


class _Secrets:
    """The handlers."""

    def __init__(self, secrets: SecretService) -> None:
        self._secrets = secrets

    async def list_all(self, call: Call) -> Response:
        found = await self._secrets.list_all(call.project_id)
        return json_response({"object": "list", "data": [_view(secret) for secret in found]})

    async def create(self, call: Call) -> Response:
        secret, redeployed = await self._secrets.create(call.project_id, call.body, call.identity.key.id)
        call.changed(secret.name, after=_recorded(secret, call.body, redeployed))
        return json_response({**_view(secret), "redeployed": redeployed})

    async def get(self, call: Call) -> Response:
        return json_response(_view(await self._secrets.get(call.project_id, call.path["secret"])))

    async def update(self, call: Call) -> Response:
        secret, redeployed = await self._secrets.update(
            call.project_id, call.path["secret"], call.body, call.identity.key.id
        )
        call.changed(secret.name, after=_recorded(secret, call.body, redeployed))
        return json_response({**_view(secret), "redeployed": redeployed})

    async def delete(self, call: Call) -> Response:
        secret, used_by = await self._secrets.delete(call.project_id, call.path["secret"])
        call.changed(secret.name, before={"description": secret.description, "used_by": used_by})
        return json_response(
            {"object": "secret", "id": secret.id, "name": secret.name, "deleted": True, "used_by": used_by}
        )


def _recorded(secret: Secret, fields: SecretFields, redeployed: list[str]) -> dict[str, Any]:
    """What the record of changes keeps: that there is a new value, never the value."""
    return {
        "description": secret.description,
        "ttl_seconds": secret.ttl_seconds,
        "new_value": isinstance(fields.value, str),
        "redeployed": redeployed,
    }


def _view(secret: Secret) -> dict[str, Any]:
    view: dict[str, Any] = {
        "object": "secret",
        "id": secret.id,
        "name": secret.name,
        "description": secret.description,
        "created_at": iso(secret.created_at),
        "updated_at": iso(secret.updated_at),
        "created_by": secret.created_by,
        "last_updated_by": secret.last_updated_by,
    }
    if secret.ttl_seconds is not None:
        view |= {"ttl_seconds": secret.ttl_seconds, "expires_at": iso(secret.expires_at)}
    return view
