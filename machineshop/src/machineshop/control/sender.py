"""Sends one webhook: a POST that goes only where it may, follows nothing, and is over in time."""

import asyncio
import io
import ipaddress
import os
import socket
from collections.abc import Mapping

import aiohttp
import msgspec
from aiohttp import AddrInfoType
from yarl import URL

from machineshop import __version__
from machineshop.errors import InvalidRequest
from machineshop.services.targets import SETTING, Targets

TOTAL_SECONDS = 10.0
# Of an answer that is no success; what it says goes into the error, shortened.
ANSWER_LIMIT_BYTES = 4096
ERROR_TEXT_LENGTH = 200


class TargetRefused(OSError):
    """A connection that may not be made."""


class Answer(msgspec.Struct, frozen=True):
    """What came of one send."""

    status: int | None
    """None: there was no answer."""
    error: str | None = None
    """Why it was no success, for people; None: the receiver took it."""

    @property
    def gone(self) -> bool:
        """The receiver says that nobody will ever take it."""
        return self.status == 410


class Sender:
    """Makes a connection for each send: one that was kept would fail whenever its receiver has just closed it."""

    def __init__(self, targets: Targets, total_seconds: float = TOTAL_SECONDS) -> None:
        self._targets = targets
        self._total_seconds = total_seconds
        self._session: aiohttp.ClientSession | None = None

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, began: float) -> Answer:
        """POST a body; whatever goes wrong is in the answer.

        Arguments:
            url: Where to.
            headers: Beside those that every request has.
            body: What is sent.
            began: From when on the time counts, by the event loop's clock.
        """
        status = None
        try:
            self._targets.check_url(url)
            async with (
                asyncio.timeout_at(began + self._total_seconds),
                self._opened().post(
                    URL(url), data=io.BytesIO(body), headers=headers, allow_redirects=False
                ) as response,
            ):
                status = response.status
                if 200 <= status < 300:
                    return Answer(status)
                return Answer(status, _refusal(status, await _read(response)))
        except InvalidRequest as error:
            return Answer(None, error.message)
        except TimeoutError:
            if status is not None:
                return Answer(status, _refusal(status, ""))
            return Answer(None, f"There was no answer within {self._total_seconds:g} s.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(status, _cause(error) if status is None else _refusal(status, ""))

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    force_close=True,
                    resolver=aiohttp.ThreadedResolver(),
                    use_dns_cache=False,
                    socket_factory=self._guarded_socket,
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"machineshop/{__version__}", "Accept-Encoding": "identity"},
            )
        return self._session

    def _guarded_socket(self, info: AddrInfoType) -> socket.socket:
        """The last moment at which the address that is really connected to can be looked at."""
        family, kind, protocol, _, where = info
        if not self._targets.allows(ipaddress.ip_address(str(where[0])), int(where[1])):
            # Not the address: who submits jobs need not know what names stand for in here.
            raise TargetRefused("its host resolves to an address that webhooks may not go to")
        return socket.socket(family, kind, protocol)


async def _read(response: aiohttp.ClientResponse) -> str:
    """The beginning of an answer, if it is text."""
    data = bytearray()
    while len(data) < ANSWER_LIMIT_BYTES and (part := await response.content.read(ANSWER_LIMIT_BYTES - len(data))):
        data += part
    return "" if response.headers.get("Content-Encoding") else data.decode(errors="replace")


def _refusal(status: int, text: str) -> str:
    if 300 <= status < 400:
        return f"The receiver answered {status}, a redirect, which webhooks do not follow."
    said = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return f"The receiver answered {status}" + (f": {said[:ERROR_TEXT_LENGTH]}" if said else ".")


# What is said of an error of aiohttp's or the system's; the first that fits.
_CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "The host's name cannot be resolved."),
    (aiohttp.ClientConnectorSSLError, "The receiver does not speak TLS as it should."),
    (aiohttp.ServerDisconnectedError, "The receiver closed the connection before it answered."),
    (ConnectionError, "The receiver closed the connection before it answered."),
    (aiohttp.ClientResponseError, "The receiver's answer is no HTTP."),
    (ValueError, "The URL cannot be understood."),
)


def _cause(error: Exception) -> str:
    """An error of a connection in a sentence, without addresses."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        certificate_error = error.certificate_error
        return f"The receiver's certificate is not valid: {getattr(certificate_error, 'verify_message', 'it is not')}."
    for kind, text in _CAUSES:
        if isinstance(error, kind):
            return text
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connection_cause(error.os_error)
    return f"It could not be sent ({type(error).__name__})."


def _connection_cause(error: OSError) -> str:
    if isinstance(error, TargetRefused):
        return f"The URL may not be called: {error}. The server's setting {SETTING} allows networks."
    if error.errno is None:
        return "No connection could be made."
    return f"No connection could be made: {os.strerror(error.errno)}."
