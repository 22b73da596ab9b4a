"""The platform over HTTP: one client with timeouts, retries of what may be repeated, and errors in jig's words."""

from __future__ import annotations

import random
import ssl
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

# httpx brings a command line of its own that loads rich and pygments; a missing one is a case that it provides for.
sys.modules["httpx._main"] = None  # type: ignore[assignment]
import httpx  # noqa: E402  the line above must come first

from jig.contexts import Target  # noqa: E402
from jig.errors import ConflictError, JigError, NotFoundError, PlatformError, UnauthorizedError, UnreachableError  # noqa: E402

CHUNK_BYTES = 256 * 1024
CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 60.0  # the platform answers in milliseconds; a registry that checks a large layer takes longer
TRIES = 6  # a restart of the platform takes a second or two: 0.2 + 0.4 + ... + 3.2 s, or what Retry-After says
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE", "PATCH"})
DEPLOYMENT_HINT = "`jig list` shows those that there are; `jig deploy` makes one of this folder's project."
NO_DEPLOYMENT = "no deployment"  # the platform's words; its 404s have no code that tells what is missing
LOGIN_HINT = "Log in with `jig auth login`, or set TOGETHER_API_KEY."

Json = Any
"""A parsed answer: what it holds is checked where it is used."""


@dataclass(frozen=True)
class Download:
    """A file on its way.

    Args:
        size_bytes: how many there will be, or None where the platform doesn't say.
        chunks: the bytes, in pieces.
    """

    size_bytes: int | None
    chunks: Iterator[bytes]


class Client:
    """One platform, one key.

    Args:
        target: where to talk to. Every path given to the methods starts with a slash and is joined to its base URL;
            a whole URL is taken as it is.
    """

    def __init__(self, target: Target) -> None:
        if target.api_key is not None and not is_header_value(target.api_key):
            # The HTTP client would refuse it too, in words that show it.
            message = f"The API key for {target.base_url} holds a space, a line break or a character that no key has."
            raise UnauthorizedError(message, hint=LOGIN_HINT)
        self.target = target
        self._opened: dict[bool, httpx.Client] = {}
        self._has_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in self._opened.values():
            opened.close()

    def get(self, path: str, **params: object) -> Json:
        """The parsed answer to a GET; parameters that are None are left out.

        Raises:
            PlatformError: any answer but a 2xx one, or none at all.
        """
        return self._json("GET", path, params=present(params))

    def post(self, path: str, body: object) -> Json:
        """The parsed answer to a POST of JSON. It is sent once: only a refused connection is tried again."""
        return self._json("POST", path, json=body)

    def patch(self, path: str, body: object) -> Json:
        """The parsed answer to a PATCH of JSON."""
        return self._json("PATCH", path, json=body)

    def delete(self, path: str) -> Json:
        """The parsed answer to a DELETE."""
        return self._json("DELETE", path)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A whole answer, after retries.

        Raises:
            PlatformError: any answer but a 2xx one, or none at all.
        """
        for attempt in range(1, TRIES + 1):
            try:
                response = self._http(path).request(method, self.url(path), **options)
            except httpx.TransportError as error:
                if attempt == TRIES or not may_repeat(method, error, has_answered=self._has_answered):
                    raise self._unreachable(error) from error
                time.sleep(pause_seconds(attempt, None, random.random()))  # noqa: S311  jitter is no secret
                continue
            self._has_answered = True
            if response.status_code not in RETRIED_STATUSES or method not in IDEMPOTENT_METHODS or attempt == TRIES:
                return checked(response)
            time.sleep(pause_seconds(attempt, response.headers.get("retry-after"), random.random()))  # noqa: S311
        raise AssertionError("unreachable: the last try returns or raises")

    def send(
        self,
        method: str,
        url: str,
        content: Iterable[bytes],
        *,
        length: int,
        key: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Stream a body of known length, once.

        Args:
            method: PUT or the method that the platform asked for.
            url: a path or a whole URL.
            content: the bytes, in pieces.
            length: how many bytes there are.
            key: False for a signed URL, which must not see the API key.
            headers: what else the receiver wants to see.

        Raises:
            PlatformError: any answer but a 2xx one, or none at all.
        """
        request = self._http(url).build_request(
            method,
            self.url(url),
            content=content,
            headers={"Content-Type": "application/octet-stream", **(headers or {}), "Content-Length": str(length)},
        )
        if not key:
            request.headers.pop("Authorization", None)
        try:
            return checked(self._http(url).send(request))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def lines(self, path: str, **params: object) -> Iterator[str]:
        """The lines of an answer that may have no end, as they arrive.

        Raises:
            PlatformError: any answer but a 2xx one, or the connection broke.
        """
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_SECONDS)
        try:
            with self._http(path).stream("GET", self.url(path), params=present(params), timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                checked(response)
                yield from self._whole_lines(response)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @contextmanager
    def download(self, path: str) -> Iterator[Download]:
        """A file's bytes as they arrive, within this block.

        Raises:
            PlatformError: any answer but a 2xx one, or the connection broke.
        """
        try:
            with self._http(path).stream("GET", self.url(path)) as response:
                if not response.is_success:
                    response.read()
                length = checked(response).headers.get("content-length", "")
                yield Download(int(length) if length.isdecimal() else None, response.iter_bytes(CHUNK_BYTES))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def url(self, path: str) -> str:
        """The whole URL of a path on this platform."""
        return self.target.base_url + path if path.startswith("/") else path

    def _whole_lines(self, response: httpx.Response) -> Iterator[str]:
        try:
            yield from response.iter_lines()
        except httpx.TransportError as error:
            message = f"The platform at {self.target.base_url} has stopped, or the connection to it broke."
            raise UnreachableError(message, hint="To go on, run the same command again.") from error

    def _json(self, method: str, path: str, **options: Any) -> Json:
        response = self.request(method, path, **options)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            message = f"What answers at {self.url(path)} is no platform: it sent no JSON object."
            raise PlatformError(message, status=response.status_code, hint="Check TOGETHER_BASE_URL.")
        return document

    def _http(self, path: str) -> httpx.Client:
        """The connections for plain or for encrypted URLs; loading the trusted authorities takes a while."""
        is_secure = self.url(path).startswith("https:")
        if is_secure not in self._opened:
            headers = {"Authorization": f"Bearer {self.target.api_key}"} if self.target.api_key else {}
            timeout = httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
            nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._opened[is_secure] = httpx.Client(headers=headers, timeout=timeout, verify=is_secure or nobody)
        return self._opened[is_secure]

    def _unreachable(self, error: httpx.TransportError) -> JigError:
        base_url = self.target.base_url
        if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = "Set SSL_CERT_FILE to the certificate of the platform's authority."
            return UnreachableError(f"The certificate of {base_url} is not trusted.", hint=hint)
        if isinstance(error, httpx.ConnectError) and "WRONG_VERSION_NUMBER" in str(error):
            hint = f"Perhaps it is http{base_url.removeprefix('https')}."
            return UnreachableError(f"What answers at {base_url} speaks no TLS.", hint=hint)
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            hint = "Start one with `machineshop serve`, or set TOGETHER_BASE_URL."
            return UnreachableError(f"No platform answers at {base_url}.", hint=hint)
        if isinstance(error, httpx.TimeoutException):
            return UnreachableError(f"The platform at {base_url} did not answer in time.")
        return UnreachableError(f"The connection to {base_url} broke: {error}.")


def may_repeat(method: str, error: httpx.TransportError, *, has_answered: bool) -> bool:
    """True where a second try cannot do a thing twice: idempotent calls, and those that never left this machine.

    A platform that refuses the first connection is not there, and saying so at once is kinder than waiting; one that
    has answered before is being restarted.
    """
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    if never_sent and "refused" in str(error).lower():
        return has_answered
    return never_sent or method in IDEMPOTENT_METHODS


def pause_seconds(attempt: int, retry_after: str | None, jitter: float) -> float:
    """How long to wait after the nth failed try: what the platform asks for, else doubling, with jitter in 0..1."""
    if retry_after and retry_after.isdigit():
        return min(float(retry_after), LONGEST_PAUSE_SECONDS)
    doubled = FIRST_PAUSE_SECONDS * float(2 ** (attempt - 1))
    return min(doubled * (0.75 + jitter / 2), LONGEST_PAUSE_SECONDS)


def present(params: Mapping[str, object]) -> dict[str, Any]:
    """The parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def checked(response: httpx.Response) -> httpx.Response:
    """The response, where it is a 2xx one.

    Raises:
        PlatformError: it is not; the class says which kind.
    """
    if response.is_success:
        return response
    body = error_body(response)
    message = str(body.get("message") or f"The platform answered {response.status_code} {response.reason_phrase}.")
    if response.status_code == 401:
        raise UnauthorizedError(message, status=401, body=body, hint=LOGIN_HINT)
    hint = DEPLOYMENT_HINT if response.status_code == 404 and NO_DEPLOYMENT in message else None
    kind = {404: NotFoundError, 409: ConflictError}.get(response.status_code, PlatformError)
    raise kind(message, status=response.status_code, body=body, hint=hint)


def error_body(response: httpx.Response) -> dict[str, Any]:
    """The error's fields: those under `error`, over those at the top level."""
    try:
        document = response.json()
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    nested = document.get("error")
    if isinstance(nested, str):
        return document | {"message": nested}
    return document | nested if isinstance(nested, dict) else document


def is_header_value(key: str) -> bool:
    """True for printable ASCII without spaces, which is all that a key can be in a header."""
    return key.isascii() and key.isprintable() and " " not in key
