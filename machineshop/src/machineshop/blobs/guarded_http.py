"""HTTP connections to where other people say: only to addresses that are allowed, and broken off when that is asked.

A name may resolve to another address each time, so each connection is looked at when it is made.
"""

import contextlib
import ipaddress
import socket
import threading
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool
from botocore.httpsession import URLLib3Session
from urllib3.util.connection import create_connection

from machineshop.blobs.origin import Allows


class Refused(OSError):
    """A connection that may not be made."""


class Lines:
    """The connections of one session: others can break them off, whatever a thread waits for in them.

    Of each a second handle is kept, which TLS does not take away, until the next one of its kind or the end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[object, socket.socket] = {}
        self._is_broken_off = False

    def keep(self, user: object, line: socket.socket) -> None:
        """Note the connection that a user has now."""
        with self._lock:
            if user in self._handles:
                self._handles[user].close()
            self._handles[user] = line.dup()
        self.check()

    def check(self) -> None:
        """Raise OSError after all were broken off."""
        if self._is_broken_off:
            raise OSError("broken off")

    def break_off(self) -> None:
        """End what waits in any of them, and let none be made any more; does not block."""
        with self._lock:
            self._is_broken_off = True
            for line in self._handles.values():
                with contextlib.suppress(OSError):  # ended already
                    line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of them."""
        with self._lock:
            for line in self._handles.values():
                line.close()
            self._handles.clear()


def guarded_session(allows: Allows, lines: Lines, timeouts: tuple[int, int], max_connections: int) -> URLLib3Session:
    """Sends requests where that may go, without a proxy in between, which would go anywhere.

    Args:
        allows: Says whether a connection may be made.
        lines: Notes the connections.
        timeouts: Seconds to connect, and of silence.
        max_connections: How many are kept.
    """
    given = {"allows": staticmethod(allows), "lines": lines, "connect_seconds": timeouts[0]}
    plain = type("_GuardedHTTP", (_Guarded, AWSHTTPConnection), given)
    secure = type("_GuardedHTTPS", (_Guarded, AWSHTTPSConnection), given)
    session = URLLib3Session(verify=True, timeout=timeouts, max_pool_connections=max_connections)
    session._manager.pool_classes_by_scheme = {  # noqa: SLF001 - botocore has no other way to bring one's own
        "http": type("_PlainPool", (AWSHTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("_SecurePool", (AWSHTTPSConnectionPool,), {"ConnectionCls": secure}),
    }
    return session


class _Guarded:
    """Makes the connections of one of urllib3's, where `allows` lets it."""

    allows: Allows
    lines: Lines
    connect_seconds: int
    host: str
    port: int
    socket_options: Any

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
