"""The platform over HTTP: one client with timeouts, retries of what may be repeated, and errors in jig's words."""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from jig.answers import (
    IDEMPOTENT_METHODS,
    NO_TLS,
    NOT_TRUSTED,
    away_hint,
    checked,
    is_header_value,
    login_hint,
    may_repeat,
    pause_seconds,
    present,
    speaks_no_tls,
    whole_lines,
)
from jig.contexts import Target
from jig.errors import JigError, PlatformError, UnauthorizedError, UnreachableError
from jig.http import httpx
from jig.trust import trusting

CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 60.0  # the platform answers in milliseconds; a registry that checks a large layer takes longer
TRIES = 6  # a restart of the platform takes a second or two: 0.2 + 0.4 + ... + 3.2 s, or what Retry-After says
RETRIED_STATUSES = frozenset({500, 502, 503, 504})
TOO_MANY = (
    429  # tried again too, but not where a full queue says so: that takes longer, and is for the caller to wait for
)

Json = Any
"""A parsed answer: what it holds is checked where it is used."""


@dataclass(frozen=True)
class Download:
    """Bytes on their way.

    Args:
        size_bytes: how many there will be, or None where the platform doesn't say.
        chunks: the bytes, in pieces.
        is_rest: they are those from the place on that was asked for, and not all.
    """

    size_bytes: int | None
    chunks: Iterator[bytes]
    is_rest: bool = False


class Client:
    """One platform, one key.

    Args:
        target: where to talk to. Every path given to the methods starts with a slash and is joined to its base URL;
            a whole URL is taken as it is.
        auth: logs in where a key is not enough.

    `has_answered` tells whether anybody ever did.
    """

    def __init__(self, target: Target, auth: httpx.Auth | None = None) -> None:
        if target.api_key is not None and not is_header_value(target.api_key):
            # The HTTP client would refuse it too, in words that show it.
            message = f"The API key for {target.base_url} holds a space, a line break or a character that no key has."
            raise UnauthorizedError(message, hint=login_hint(target.key_source))
        self.target, self._auth = target, auth
        self._opened: dict[bool, httpx.Client] = {}
        self._opening = threading.Lock()  # uploads come from several threads
        self.has_answered = False

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

    def post(self, path: str, body: object, *, is_repeatable: bool = False) -> Json:
        """The parsed answer to a POST of JSON.

        Args:
            path: where to.
            body: what to send; bytes are JSON already.
            is_repeatable: the platform does a thing once even if it is told twice, so a call that may have been lost is
                sent again. Without it only a refused connection is tried again.
        """
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._json("POST", path, is_repeatable=is_repeatable, content=content, headers=headers)

    def patch(self, path: str, body: object, **params: object) -> Json:
        """The parsed answer to a PATCH of JSON; parameters that are None are left out."""
        return self._json("PATCH", path, json=body, params=present(params))

    def delete(self, path: str) -> Json:
        """The parsed answer to a DELETE."""
        return self._json("DELETE", path)

    def request(self, method: str, path: str, *, is_repeatable: bool = False, **options: Any) -> httpx.Response:
        """A whole answer, after retries.

        Raises:
            PlatformError: any answer but a 2xx one, or none at all.
        """
        is_repeatable = is_repeatable or method in IDEMPOTENT_METHODS
        for attempt in range(1, TRIES + 1):
            try:
                response = self._http(path).request(method, self.url(path), **options)
            except httpx.TransportError as error:
                if attempt == TRIES or not may_repeat(
                    error, is_repeatable=is_repeatable, has_answered=self.has_answered
                ):
                    raise self._unreachable(error) from error
                time.sleep(pause_seconds(attempt, None, random.random()))  # noqa: S311  jitter is no secret
                continue
            self.has_answered = True
            is_passing = response.status_code in RETRIED_STATUSES or (
                response.status_code == TOO_MANY and method in IDEMPOTENT_METHODS
            )
            if not is_passing or not is_repeatable or attempt == TRIES:
                return self._checked(response)
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
            return self._checked(self._http(url).send(request))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def lines(
        self,
        path: str,
        params: Mapping[str, object],
        *,
        silence_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[str]:
        """The lines of an answer that may have no end, as they arrive.

        Args:
            path: where from.
            params: the query's; those that are None are left out.
            silence_seconds: a connection on which nothing comes for so long is taken for broken.
            headers: what else the platform should know.

        Raises:
            PlatformError: any answer but a 2xx one, or the connection broke.
        """
        timeout = httpx.Timeout(silence_seconds, connect=CONNECT_TIMEOUT_SECONDS)
        asked: dict[str, Any] = {"params": present(params), "headers": headers, "timeout": timeout}
        try:
            with self._http(path).stream("GET", self.url(path), **asked) as response:
                if not response.is_success:
                    response.read()
                self.has_answered = True
                self._checked(response)
                yield from whole_lines(self._pieces(response))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @contextmanager
    def download(self, path: str, *, body: object = None, start_bytes: int = 0) -> Iterator[Download]:
        """A file's bytes as they arrive, within this block, tried once.

        Args:
            path: where from.
            body: what to ask for, as JSON: then it is a POST.
            start_bytes: how many bytes at the beginning are not wanted; `is_rest` says whether they were left out.

        Raises:
            PlatformError: any answer but a 2xx one, or the connection broke.
        """
        method = "GET" if body is None else "POST"
        headers = {"Range": f"bytes={start_bytes}-"} if start_bytes else {}
        try:
            with self._bytes_of(method, path, body, headers) as response:
                if not response.is_success:
                    response.read()
                self.has_answered = True
                length = self._checked(response).headers.get("content-length", "")
                is_rest = response.headers.get("content-range", "").startswith(f"bytes {start_bytes}-")
                size_bytes = int(length) if length.isdecimal() else None
                yield Download(size_bytes, response.iter_bytes(), is_rest)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @contextmanager
    def _bytes_of(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer with a file's bytes: the platform's, or that of the object storage that it names."""
        with self._http(path).stream(method, self.url(path), json=body, headers=headers) as response:
            location = response.headers.get("location") if response.is_redirect else None
            if location is None:
                yield response
                return
        url = str(response.url.join(location))
        request = self._http(url).build_request("GET", url, headers=headers)
        request.headers.pop("Authorization", None)  # its address is all that it needs
        with closing(self._http(url).send(request, stream=True)) as elsewhere:
            yield elsewhere

    def url(self, path: str) -> str:
        """The whole URL of a path on this platform."""
        return self.target.base_url + path if path.startswith("/") else path

    def _checked(self, response: httpx.Response) -> httpx.Response:
        return checked(response, self.target.key_source)

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()
        except httpx.TransportError as error:
            message = f"The platform at {self.target.base_url} has stopped, or the connection to it broke."
            raise UnreachableError(message, hint="To go on, run the same command again.") from error

    def document(self, response: httpx.Response) -> Json:
        """The JSON object of an answer.

        Raises:
            PlatformError: it holds none.
        """
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            message = f"What answers at {response.url} is no platform: it sent no JSON object."
            raise PlatformError(message, status=response.status_code, hint="Check TOGETHER_BASE_URL.")
        return document

    def _json(self, method: str, path: str, **options: Any) -> Json:
        return self.document(self.request(method, path, **options))

    def _http(self, path: str) -> httpx.Client:
        """The connections for plain or for encrypted URLs; loading the trusted authorities takes a while."""
        is_secure = self.url(path).startswith("https:")
        with self._opening:
            if is_secure not in self._opened:
                self._opened[is_secure] = self._open(is_secure=is_secure)
        return self._opened[is_secure]

    def _open(self, *, is_secure: bool) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.target.api_key}"} if self.target.api_key else {}
        timeout = httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        verify = trusting(self.target.ca) if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.Client(headers=headers, timeout=timeout, verify=verify, auth=self._auth)

    def _unreachable(self, error: httpx.TransportError) -> JigError:
        base_url = self.target.base_url
        if isinstance(error, httpx.ConnectError) and NOT_TRUSTED in str(error):
            hint = (
                f"Get to know its authority with `jig auth login {base_url}`, or set SSL_CERT_FILE to its certificate."
            )
            return UnreachableError(f"The certificate of {base_url} is not trusted.", hint=hint)
        if isinstance(error, httpx.ConnectError) and NO_TLS in str(error):
            return speaks_no_tls(base_url)
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return UnreachableError(f"No platform answers at {base_url}.", hint=away_hint(self.target.source))
        if isinstance(error, httpx.TimeoutException):
            return UnreachableError(f"The platform at {base_url} did not answer in time.")
        cause = str(error).rstrip(".") or type(error).__name__
        return UnreachableError(f"The connection to {base_url} broke: {cause}.")
