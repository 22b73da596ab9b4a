"""What an answer of the platform, or none, means: an error in jig's words, or one more try. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jig.errors import (
    ConflictError,
    NotFoundError,
    PlatformError,
    QueueFullError,
    UnauthorizedError,
    UnreachableError,
    UnsupportedError,
)
from jig.http import httpx

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
NO_TLS = "WRONG_VERSION_NUMBER"
NOT_TRUSTED = "CERTIFICATE_VERIFY_FAILED"
LASTING_TLS_FAULTS = (NO_TLS, NOT_TRUSTED)
DEFAULT_FULL_PAUSE_SECONDS = 1.0  # where a full queue does not say when to come again
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "PATCH"})
DEPLOYMENT_HINT = "`jig list` shows those that there are; `jig deploy` makes one of this folder's project."
JOB_HINT = "`jig jobs list NAME` shows a deployment's jobs; those of another one are found with --name."
# The platform's words: its 404s have no code that tells what is missing.
NO_DEPLOYMENT = "no deployment"
NO_JOB = "no job"
NO_ROUTE = "no route"
MISSING_HINTS = {
    NO_DEPLOYMENT: DEPLOYMENT_HINT,
    NO_JOB: JOB_HINT,
    "no revision": "`jig revisions list NAME` shows those of a deployment.",
    "no secret": "See which there are: jig secrets list",
    "no version": "`jig volumes describe NAME` shows those of a volume.",
}
NOT_PERMITTED = "not_permitted"  # the code of a key whose scope is too small
START_HINT = "Start one with `machineshop serve`, or set TOGETHER_BASE_URL."
LOGIN_HINT = "Log in with `jig auth login`, or set TOGETHER_API_KEY."
KEY_VARIABLE = "TOGETHER_API_KEY"


def may_repeat(error: httpx.TransportError, *, is_repeatable: bool, has_answered: bool) -> bool:
    """True where a second try cannot do a thing twice: repeatable calls, and those that never left this machine.

    A platform that refuses the first connection is not there, and saying so at once is kinder than waiting; one that
    has answered before is being restarted. What speaks no TLS, or is not trusted, is the same at the next try.
    """
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    if never_sent and any(reason in str(error) for reason in LASTING_TLS_FAULTS):
        return False
    if never_sent and "refused" in str(error).lower():
        return has_answered
    return never_sent or is_repeatable


def pause_seconds(attempt: int, retry_after: str | None, jitter: float) -> float:
    """How long to wait after the nth failed try: what the platform asks for, else doubling, with jitter in 0..1."""
    if retry_after and retry_after.isdigit():
        return min(float(retry_after), LONGEST_PAUSE_SECONDS)
    doubled = FIRST_PAUSE_SECONDS * float(2 ** (attempt - 1))
    return min(doubled * (0.75 + jitter / 2), LONGEST_PAUSE_SECONDS)


def present(params: Mapping[str, object]) -> dict[str, Any]:
    """The parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def login_hint(key_source: str | None) -> str:
    """What to do about a key that is none.

    Args:
        key_source: where it comes from, as `Target` says it.
    """
    if key_source is None:
        return LOGIN_HINT
    if key_source == KEY_VARIABLE:
        return f"The key is that of {KEY_VARIABLE}: set it to another, or unset it. Log in with `jig auth login`."
    return f"The key is that of the {key_source}. {LOGIN_HINT}"


def away_hint(source: str) -> str:
    """What to do about an address at which nobody answers.

    Args:
        source: where it comes from, as `Target` says it.
    """
    if source.startswith("context "):
        return f"It is that of the {source}; `jig context list` shows others. {START_HINT}"
    return START_HINT


def speaks_no_tls(base_url: str) -> UnreachableError:
    """The error of an address that begins with https, where a plain server listens."""
    hint = f"Perhaps it is http{base_url.removeprefix('https')}."
    return UnreachableError(f"What answers at {base_url} speaks no TLS.", hint=hint)


def checked(response: httpx.Response, key_source: str | None = None) -> httpx.Response:
    """The response, where it is a 2xx one.

    Args:
        response: an answer.
        key_source: where the key comes from that was sent, as `Target` says it.

    Raises:
        PlatformError: it is not; the class says which kind.
    """
    if response.is_success:
        return response
    status, body = response.status_code, error_body(response)
    message = str(body.get("message") or f"The platform answered {status} {response.reason_phrase}.")
    if status == 401:
        raise UnauthorizedError(message, status=status, body=body, hint=login_hint(key_source))
    if status == 405 or (status == 404 and NO_ROUTE in message):
        raise unsupported(response.request, status, body)
    if status == 429 and body.get("code") == QueueFullError.code:
        raise QueueFullError(message, retry_after_seconds=full_pause_seconds(response), body=body)
    if status == 404:
        hint = next((hint for words, hint in MISSING_HINTS.items() if words in message), None)
        raise NotFoundError(message, status=status, body=body, hint=hint)
    if body.get("code") == NOT_PERMITTED:
        raise PlatformError(message, status=status, body=body, hint=login_hint(key_source))
    kind = ConflictError if status == 409 else PlatformError
    raise kind(message, status=status, body=body)


def unsupported(request: httpx.Request, status: int, body: dict[str, Any]) -> UnsupportedError:
    """The error of a platform that lacks a route."""
    url = request.url
    message = (
        f"The platform at {url.scheme}://{url.netloc.decode()} cannot do this: it has no {request.method} {url.path}."
    )
    return UnsupportedError(message, status=status, body=body, hint="It is older than this jig. Update the platform.")


def full_pause_seconds(response: httpx.Response) -> float:
    """When to come again to a full queue, as the platform asks for."""
    retry_after = response.headers.get("retry-after", "")
    return float(retry_after) if retry_after.isdigit() else DEFAULT_FULL_PAUSE_SECONDS


def error_body(response: httpx.Response) -> dict[str, Any]:
    """The error's fields: those under `error`, or of a registry's first one, over those at the top level."""
    try:
        document = response.json()
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    nested = document.get("error")
    if isinstance(nested, str):
        return document | {"message": nested}
    if isinstance(of_registry := document.get("errors"), list) and of_registry:
        nested = of_registry[0]
    return document | nested if isinstance(nested, dict) else document


def is_header_value(key: str) -> bool:
    """True for printable ASCII without spaces, which is all that a key can be in a header."""
    return key.isascii() and key.isprintable() and " " not in key


def whole_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text that arrives in pieces, without their ends.

    Lines end with a line feed alone: JSON may hold the other characters that Python takes for ends of lines.
    """
    parts: list[bytes] = []
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            yield text_of((*parts, piece))
            parts.clear()
        if rest:
            parts.append(rest)
    if parts:
        yield text_of(parts)


def text_of(parts: Iterable[bytes]) -> str:
    """A line of its pieces."""
    return b"".join(parts).removesuffix(b"\r").decode(errors="replace")
