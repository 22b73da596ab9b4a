"""What a connection does for a request in one call, where ASGI takes several messages.

A server that wakes up for a job pays for every function that it enters, since none of it is in the processor's caches
any more. Bodies that came whole, and answers of JSON, are most of what it reads and writes.
"""

from collections.abc import Callable

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

# In the extensions of a request that came on a connection of ours.
SHORTCUT = "machineshop.shortcut"


class Shortcut:
    """That of one connection. Whatever is out of the ordinary it leaves to ASGI.

    Args:
        connection: Whose.
        write: Sends what it is given.
    """

    def __init__(self, connection: HttpToolsProtocol, write: Callable[[bytes], object]) -> None:
        self._connection = connection
        self._write = write

    def whole_body(self, scope: Scope) -> bytes | None:
        """The body of a request, where all of it has come; None: it is to be received."""
        cycle: RequestResponseCycle = self._connection.cycle
        if cycle.scope is not scope or cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
            return None
        body, cycle.body = cycle.body, bytearray()
        return bytes(body)

    def answer(self, scope: Scope, json: bytes) -> bool:
        """Answer a request with 200 and this; whether that was done: otherwise it is to be sent."""
        connection = self._connection
        cycle: RequestResponseCycle = connection.cycle
        ordinary = (
            cycle.scope is scope  # no other request has come behind it
            and cycle.keep_alive
            and not (cycle.more_body or cycle.response_started or cycle.disconnected)
            and not connection.flow.write_paused
            and scope["method"] != "HEAD"
        )
        if not ordinary:
            return False
        cycle.response_started = cycle.response_complete = True
        defaults = b"".join([b"%b: %b\r\n" % header for header in connection.server_state.default_headers])
        head = b"%b%bcontent-length: %d\r\ncontent-type: application/json\r\n\r\n"
        self._write(head % (STATUS_LINE[200], defaults, len(json)) + json)
        cycle.message_event.set()  # whoever waits to hear of the connection's end
        connection.on_response_complete()
        return True


def shortcut_of(scope: Scope) -> Shortcut | None:
    """The shortcut of a request, where it has one."""
    shortcut: Shortcut | None = scope.get("extensions", {}).get(SHORTCUT)
    return shortcut
