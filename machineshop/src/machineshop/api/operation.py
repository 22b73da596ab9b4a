"""What a route says of itself, which `openapi` makes the description of the API of: it is given with the route.

A type is what msgspec makes a JSON schema of: those of requests are the ones that bodies are decoded with, those of
answers are in `described`. A test holds every answer that it gets against them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.routing import Route

from machineshop.models import Scope


class Query(msgspec.Struct, frozen=True):
    """A parameter of the query."""

    name: str
    about: str
    type: Any = str
    required: bool = False


class Link(msgspec.Struct, frozen=True):
    """What can be asked next with something of an answer."""

    operation: str
    """As `GET /v1/deployments/{deployment}`."""
    parameters: Mapping[str, str]
    """Runtime expressions of OpenAPI, as `$response.body#/id`, by parameter."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path."""

    about: str
    """A sentence."""
    answer: Any = None
    """The type of the JSON that it answers with, a tuple of several; None: `media` says what it is."""
    media: Sequence[str] = ("application/json",)
    status: int = 200
    statuses: Mapping[int, str] = {}
    """Other answers that are no errors, and what they say."""
    query: Sequence[Query] = ()
    headers: Sequence[Query] = ()
    errors: Mapping[int, Any] = {}
    """Errors beside those that every such route has; a type where the answer has more than errors have."""
    body: Any = None
    """The type of its body, where the one that decodes it says less; it goes before that."""
    body_media: str = "application/json"
    """What its body is; of another than JSON, `body` is the type of what `body_about` says."""
    body_about: str = ""
    """What else there is to say of the body; a sentence or two."""
    links: Sequence[Link] = ()
    head: bool = False
    """Whether HEAD is a way to ask of its own."""


class DescribedRoute(Route):
    """A route with what it says of itself.

    Args:
        method: The HTTP method.
        path: The path, with its placeholders.
        endpoint: What answers.
        operation: What it says of itself; None: nobody has said anything yet.
        scopes: Whose keys may; None: no key is wanted.
        body: The type of its body.
    """

    def __init__(
        self,
        method: str,
        path: str,
        endpoint: Any,
        operation: Operation | None,
        scopes: Sequence[Scope] | None = None,
        body: Any = None,
    ) -> None:
        super().__init__(path, endpoint, methods=[method], name=f"{method} {path}")
        self.method = method
        self.operation = operation
        self.scopes = scopes
        self.body = body if operation is None or operation.body is None else operation.body
