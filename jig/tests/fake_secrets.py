"""The secrets of the fake platform: enough to see what jig asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from fake_platform import Handler, Request

SECRETS = "/v1/deployments/secrets"


def view(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in fields.items() if key not in ("value", "redeploy")}
    expiry = {"expires_at": "2026-01-08T00:00:00Z"} if fields.get("ttl_seconds") else {}
    return {"object": "secret", "id": f"id-{name}", **shown, "name": name, **expiry}


def list_all(handler: Handler, request: Request) -> None:
    data = [view(name, fields) for name, fields in handler.platform.secrets.items()]
    handler.answer(200, {"object": "list", "data": data})


def get(handler: Handler, request: Request, name: str) -> None:
    name = unquote(name)
    if name not in handler.platform.secrets:
        handler.answer(404, missing(name))
        return
    handler.answer(200, view(name, handler.platform.secrets[name]))


def create(handler: Handler, request: Request) -> None:
    handler.platform.secrets[request.json["name"]] = request.json
    handler.answer(200, view(request.json["name"], request.json))


def update(handler: Handler, request: Request, name: str) -> None:
    name = unquote(name)
    if name not in handler.platform.secrets:
        handler.answer(404, missing(name))
        return
    handler.platform.secrets[name] = {**handler.platform.secrets[name], **request.json}
    redeployed = list(handler.platform.deployments) if request.json.get("redeploy") else []
    handler.answer(200, {**view(name, handler.platform.secrets[name]), "redeployed": redeployed})


def delete(handler: Handler, request: Request, name: str) -> None:
    name = unquote(name)
    if handler.platform.secrets.pop(name, None) is None:
        handler.answer(404, missing(name))
        return
    users = list(handler.platform.deployments)
    handler.answer(200, {"object": "secret", "name": name, "deleted": True, "used_by": users})


def missing(name: str) -> dict[str, Any]:
    message = f"There is no secret '{name}' in this project."
    return {"error": {"message": message, "type": "not_found_error", "param": None, "code": None}}


ROUTES = (
    ("GET", SECRETS, list_all),
    ("POST", SECRETS, create),
    ("GET", f"{SECRETS}/(.+)", get),
    ("PATCH", f"{SECRETS}/(.+)", update),
    ("DELETE", f"{SECRETS}/(.+)", delete),
)
