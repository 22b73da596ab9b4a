"""The heads of requests: what is wrong with one that breaks a limit, and what its caller is told."""

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from machineshop.errors import InvalidRequest
from machineshop.http import error_response

Header = tuple[bytes, bytes]


class HeadTooLarge(InvalidRequest):
    """{message}"""


class UrlTooLong(InvalidRequest):
    """{message}"""


class HeadTooSlow(InvalidRequest):
    """{message}"""


class MalformedRequest(InvalidRequest):
    """{message}"""


STATUSES: dict[type[InvalidRequest], int] = {
    HeadTooLarge: 431,
    UrlTooLong: 414,
    HeadTooSlow: 408,
    MalformedRequest: 400,
}


def size_of_head(url: bytes, headers: Iterable[Header]) -> int:
    """How many bytes a head had, or a few less."""
    lines = sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
    return len(url) + len(b"GET  HTTP/1.1\r\n\r\n") + lines


def has_body(headers: Iterable[Header]) -> bool:
    """Whether a body follows a head."""
    lengths = {name: value for name, value in headers if name in (b"content-length", b"transfer-encoding")}
    return lengths.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in lengths


def refusal(error: InvalidRequest, headers: Iterable[Header]) -> bytes:
    """The last answer on a connection.

    Args:
        error: One of those above: what is wrong.
        headers: What every answer carries.
    """
    body = bytes(error_response(error).body)
    own = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in [*headers, *own])
    return STATUS_LINE[STATUSES[type(error)]] + lines + b"\r\n" + body
