"""HTTP connections to where other people say: only to addresses that are allowed, and broken off when that is asked.

Nobody knows what is at the other end. A name may resolve to another address each time, so each connection is looked at
when it is made; an answer that is no stream has a bound, and is whole.
"""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from xml.parsers import expat

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSPreparedRequest,
)
from botocore.httpsession import URLLib3Session
from urllib3.util.connection import create_connection

from machineshop.blobs.origin import Allows

# A page of a list, with the longest names, has half of it.
MAX_BODY_BYTES = 8 * 1024 * 1024
_REDIRECTS = {301, 302, 303, 307, 308}


class Refused(OSError):
    """A connection that may not be made."""


class WrongAnswer(Exception):
    """An answer that nothing can be made of; the text goes on from 'its object storage'."""


class GuardedHTTP:
    """Sends requests where that may go.

    Args:
        session: Makes the connections, by ours; one with a proxy would go anywhere.
        allows: Says whether a connection may be made.
        connect_seconds: How long that may take.
    """

    def __init__(self, session: URLLib3Session, allows: Allows, connect_seconds: int) -> None:
        self._lines = _Lines()
        given = {"allows": staticmethod(allows), "lines": self._lines, "connect_seconds": connect_seconds}
        plain = type("_GuardedHTTP", (_Guarded, AWSHTTPConnection), given)
        secure = type("_GuardedHTTPS", (_Guarded, AWSHTTPSConnection), given)
        self._session = session
        self._session._pool_classes_by_scheme.update(  # noqa: SLF001 - botocore has no other way
            http=type("_PlainPool", (AWSHTTPConnectionPool,), {"ConnectionCls": plain}),
            https=type("_SecurePool", (AWSHTTPSConnectionPool,), {"ConnectionCls": secure}),
        )

    def send(self, request: AWSPreparedRequest) -> Any:
        """Botocore's answer to a request; unless it is a stream that was asked for, its body is read.

        Raises:
            WrongAnswer: It leads elsewhere, or its body is too long, is no XML, or defines entities.
            OSError: It broke off.
        """
        is_stream = request.stream_output
        request.stream_output = True  # or all of it is read at once
        answer = self._session.send(request)
        if answer.status_code in _REDIRECTS and "x-amz-bucket-region" not in answer.headers:
            answer.raw.close()  # botocore would ask the same place for the region, and again for each such answer
            raise WrongAnswer(f"answers {answer.status_code}, a redirect, which is not followed")
        if is_stream and answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
            return answer
        body = answer.raw.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            answer.raw.close()
            raise WrongAnswer(f"answers with more than {MAX_BODY_BYTES // 1024**2} MiB where a few kilobytes are due")
        if answer.raw.length_remaining:
            raise OSError("broke off")
        if not _is_xml(body) and answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
            raise WrongAnswer("answers with what is no XML, or only the beginning of some")  # botocore would ask again
        answer._content = body  # noqa: SLF001 - what botocore would have read
        return answer

    def break_off(self) -> None:
        """End what waits in any connection, and let none be made any more; does not block."""
        self._lines.break_off()

    def close(self) -> None:
        """Close all connections."""
        self._lines.close()
        self._session.close()


def _is_xml(body: bytes) -> bool:
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(body, True)
    except expat.ExpatError:
        return False
    return True


def _refuse_entity(*_: object) -> None:
    raise WrongAnswer("answers with XML that defines entities")


class _Lines:
    """The connections: they can be broken off, whatever a thread waits for in them.

    Of each a second handle is kept, which TLS does not take away, until the next one of its user or the end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[_Guarded, socket.socket] = {}
        self._is_over = False

    def keep(self, user: "_Guarded", line: socket.socket) -> None:
        """Note the connection that a user has now; OSError where there may be none any more."""
        with self._lock:
            self.check()
            if user in self._handles:
                self._handles[user].close()
            self._handles[user] = line.dup()

    def check(self) -> None:
        """Raise OSError where there may be no connection any more."""
        if self._is_over:
            raise OSError("broken off")

    def break_off(self) -> None:
        with self._lock:
            self._is_over = True
            for line in self._handles.values():
                with contextlib.suppress(OSError):  # ended already
                    line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.break_off()
        with self._lock:
            for user, line in self._handles.items():
                user.close()
                line.close()
            self._handles.clear()


class _Guarded:
    """Makes the connections of one of urllib3's, where `allows` lets it."""

    allows: Allows
    lines: _Lines
    connect_seconds: int
    host: str
    port: int
    socket_options: Any
    close: Callable[[], None]

    def _new_conn(self) -> socket.socket:
        # Each address is looked at, and then connected to by itself: nobody resolves the name in between.
        error: OSError = Refused("its host has no address")
        for *_, where in socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM):
            self.lines.check()
            address = ipaddress.ip_address(str(where[0]).partition("%")[0])
            if not type(self).allows(address, int(where[1])):
                # Not the address: who names a host need not know what names stand for in here.
                error = Refused("its host resolves to an address that volumes may not be copied from")
                continue
            try:
                line = create_connection(
                    (str(address), self.port), self.connect_seconds, socket_options=self.socket_options
                )
            except OSError as failed:
                error = failed
                continue
            try:
                self.lines.keep(self, line)
            except OSError:
                line.close()
                raise
            return line
        raise error
