"""`/openapi.json`: the API described in OpenAPI 3.1, put together from what the routes say of themselves.

It is made once, at the start, from the routes that the application really has.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from machineshop import __version__
from machineshop.api.described.shapes import Error
from machineshop.api.operation import DescribedRoute, Link, Operation, Query
from machineshop.http import JsonResponse

PATH = "/openapi.json"
# What the description leaves out, by how paths begin, and why: a test asks it of all other routes.
LEFT_OUT = {
    "/v2": "The OCI distribution specification describes it.",
    "/simple/": "PEP 503 and PEP 691 describe it.",
    "/packages/": "Its addresses are on the pages of /simple/.",
    "/v1/deployment-request/": "What a deployment answers is its own affair.",
    "/v1/storage/signed/": "Signed URLs are used as they are given.",
    "/v1/storage/signed-part/": "Signed URLs are used as they are given.",
}
_REFERENCES = "#/components/schemas/{name}"
_PLACEHOLDER = re.compile(r"\{(\w+)(?::path)?\}")
_JSON = "application/json"
# What any request with a key, a query, a body or the name of something may be answered with.
_WITH_KEY = (401, 403, 429, 503)
_WITH_QUERY = (400,)
_WITH_BODY = (400, 408, 413)
_WITH_NAME = (400, 404)
_ERRORS = {
    400: "Something in the request is wrong; `param` says what.",
    401: "There is no valid key.",
    403: "The key may not do that.",
    404: "There is no such thing in this project.",
    408: "The body stopped coming.",
    409: "The state of things forbids it.",
    413: "The body, or a part of it, is too large.",
    416: "The range lies outside of the file.",
    429: "Too much at a time; `Retry-After` says when to try again.",
    503: "Not now; `Retry-After` says when to try again.",
    507: "The server's disk is full.",
}


def routes(described: Sequence[BaseRoute], base_url: Any) -> list[DescribedRoute]:
    """The route of the description.

    Args:
        described: All other routes.
        base_url: Asked for where the API is.
    """
    known: dict[str, Any] = {}

    async def description(_request: Request) -> Response:
        if not known:
            known.update(document([*described, *itself]))
        return JsonResponse(msgspec.json.encode({**known, "servers": [{"url": base_url()}]}), 200, None)

    operation = Operation(about="This description.", answer=dict[str, Any])
    itself = [DescribedRoute("GET", PATH, description, operation)]
    return itself


def plain_path(path: str) -> str:
    """A path as the description has it: without what placeholders take."""
    return _PLACEHOLDER.sub(r"{\1}", path)


def operation_id(method: str, path: str) -> str:
    """The name of a method of a path."""
    words = re.sub(r"\{(\w+)\}", r"by_\1", plain_path(path).replace("/v1/", "/").replace("/v3/", "/"))
    return f"{method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', words)}".rstrip("_")


def document(all_routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The description of the routes that say something of themselves."""
    found = [route for route in all_routes if isinstance(route, DescribedRoute) and route.operation is not None]
    types = _Types(found)
    paths: dict[str, dict[str, Any]] = {}
    for route in found:
        operation = route.operation
        assert operation is not None  # noqa: S101 - so it was chosen
        methods = [route.method, *(["HEAD"] if operation.head else [])]
        for method in methods:
            described = _operation(route, method, operation, types)
            paths.setdefault(plain_path(route.path), {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Machineshop",
            "version": __version__,
            "description": "Containers of models, their queues, files and secrets.",
        },
        "paths": paths,
        "components": {
            "schemas": types.components,
            "responses": {f"Error{status}": _error(status, types.schema(Error)) for status in _ERRORS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Types:
    """The schemas of all types that routes name."""

    def __init__(self, found: Sequence[DescribedRoute]) -> None:
        types = [Error, *(each for route in found for each in _types_of(route))]
        self._types = types
        self._schemas, self.components = msgspec.json.schema_components(types, ref_template=_REFERENCES)

    def schema(self, of: Any) -> dict[str, Any]:
        """The schema of a type, or of any of several; they are among those."""
        if isinstance(of, tuple):
            return {"anyOf": [self.schema(each) for each in of]}
        return next(schema for each, schema in zip(self._types, self._schemas, strict=True) if each is of)


def _types_of(route: DescribedRoute) -> Iterable[Any]:
    operation = route.operation
    if operation is None:
        return
    for answer in (operation.answer, *operation.errors.values(), route.body):
        yield from (each for each in (answer if isinstance(answer, tuple) else (answer,)) if each is not None)
    yield from (query.type for query in (*operation.query, *operation.headers))


def _operation(route: DescribedRoute, method: str, operation: Operation, types: _Types) -> dict[str, Any]:
    placeholders = _PLACEHOLDER.findall(route.path)
    described: dict[str, Any] = {
        "operationId": operation_id(method, route.path),
        "summary": operation.about,
        "tags": [_tag(route.path)],
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _NAME} for name in placeholders),
            *(_parameter(query, "query", types) for query in operation.query),
            *(_parameter(header, "header", types) for header in operation.headers),
        ],
        "responses": _responses(route, method, operation, types),
    }
    if route.scopes is None:
        described["security"] = []
    else:
        described["description"] = f"Keys: {', '.join(sorted(route.scopes))}."
        described["security"] = [{"key": []}]
    if route.body is not None:
        described["requestBody"] = _request_body(route, operation, types)
    return described


def _request_body(route: DescribedRoute, operation: Operation, types: _Types) -> dict[str, Any]:
    is_json = operation.body_media == _JSON
    about = {"description": operation.body_about} if operation.body_about else {}
    content = {operation.body_media: {"schema": types.schema(route.body)} if is_json else {}}
    return {"required": True, "content": content, **about}


_NAME = {"type": "string", "minLength": 1}


def _tag(path: str) -> str:
    """What a route is about: the first part of its path behind the version, or the second where that is a place."""
    parts = [part for part in path.split("/") if part and part not in {"internal", "v1", "v3"}]
    return parts[1] if parts[0] == "deployments" and parts[1:2] in (["secrets"], ["storage"]) else parts[0]


def _parameter(query: Query, where: str, types: _Types) -> dict[str, Any]:
    return {
        "name": query.name,
        "in": where,
        "required": query.required,
        "description": query.about,
        "schema": types.schema(query.type),
    }


def _responses(route: DescribedRoute, method: str, operation: Operation, types: _Types) -> dict[str, Any]:
    body = {} if operation.answer is None else types.schema(operation.answer)
    answer: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if method != "HEAD":
        answer["content"] = {media: {"schema": body} if media == _JSON else {} for media in operation.media}
    if operation.links:
        answer["links"] = {operation_id(*_cut(link)): _link(link) for link in operation.links}
    responses: dict[str, Any] = {str(operation.status): answer}
    responses |= {
        str(status): {"description": about, "content": {media: {} for media in operation.media}}
        for status, about in operation.statuses.items()
    }
    for status in sorted(_usual_errors(route, operation) | operation.errors.keys()):
        special = operation.errors.get(status)
        if method == "HEAD":
            responses[str(status)] = {"description": _ERRORS[status]}
        elif special is None:
            responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
        else:
            responses[str(status)] = _error(status, types.schema(special))
    return responses


def _error(status: int, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": _ERRORS[status], "content": {_JSON: {"schema": schema}}}


def _usual_errors(route: DescribedRoute, operation: Operation) -> set[int]:
    usual: set[int] = set()
    if route.scopes is not None:
        usual.update(_WITH_KEY)
    if operation.query:
        usual.update(_WITH_QUERY)
    if route.body is not None:
        usual.update(_WITH_BODY)
    if "{" in route.path or any(query.required for query in operation.query):
        usual.update(_WITH_NAME)
    return usual


def _cut(link: Link) -> tuple[str, str]:
    method, _, path = link.operation.partition(" ")
    return method, path


def _link(link: Link) -> Mapping[str, Any]:
    return {"operationId": operation_id(*_cut(link)), "parameters": dict(link.parameters)}
