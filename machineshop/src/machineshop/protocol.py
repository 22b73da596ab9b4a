"""The bounds of what a connection may send before anyone has looked at its key.

uvicorn's HTTP protocol sets none: one endless header would keep the server busy and fill its memory, and requests that
never become whole would use up its file descriptors. `BoundedHttpProtocol` is that protocol with limits; past its head,
a request is the application's affair.
"""

import logging
from asyncio import BaseTransport, Event, Protocol, TimerHandle, Transport
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from machineshop.answering import Answering, answer
from machineshop.errors import InvalidRequest
from machineshop.heads import HeadTooLarge, HeadTooSlow, MalformedRequest, UrlTooLong, has_body, refusal, size_of_head
from machineshop.shortcut import SHORTCUT, Shortcut
from machineshop.transport import HeadWithBody

log = logging.getLogger(__name__)

# In the extensions of a request that asked for another protocol, as for a WebSocket: called with the head of the answer
# and the protocol that speaks from then on, it gives up the connection, with what came on it already.
TUNNEL = "machineshop.tunnel"
# Nobody may say more than this before it is known whether the other protocol will be spoken.
MAX_EARLY_BYTES = 64 * 1024
_ASGI: Any = {"version": "3.0", "spec_version": "2.3"}


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits on a request's head, and errors in the API's form.

    It takes up heads by itself, in fewer steps than uvicorn's, which serves settings that nobody here has: what happens
    between a request's first byte and its task counts where everything is asleep until then.

    Requests that come whole and bodies that flow pay a few comparisons each. `_unread_bytes` is what came since the
    last end of a head and the last piece of a body: all of it belongs to a head, or to what frames a body.
    """

    # Keys, cookies and traces fit in a tenth of each.
    max_head_bytes = 64 * 1024
    max_url_bytes = 16 * 1024
    max_headers = 200
    # How long a new connection may say nothing, and how long a head may take from its first byte on.
    head_timeout_seconds = 20.0
    # How long a caller may take nothing of what is sent to it. What waits for it may be a replica's turn.
    stalled_seconds = 600.0
    # How long a refused caller is listened to: closing at once would reset the connection, and lose the answer.
    linger_seconds = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unread_bytes = 0
        self._hosts = 0
        self._refused = False
        self._begun: object = None  # the scope of the last request whose head is whole
        self._timed: object = None  # the scope of the request whose head the timer is for
        self._fault: InvalidRequest | None = None
        self._timer: TimerHandle | None = None
        self._stalled: TimerHandle | None = None
        self._upgrading = False  # the parser has nothing more to say
        self._early = b""
        self._tunnel: Protocol | None = None
        self._extensions: dict[str, Any] = {}
        self._idle_since = 0.0
        self._answering = Answering(self.loop, self.tasks)
        self._under_way: RequestResponseCycle | None = None  # the request that is, or was last

    def connection_made(self, transport: BaseTransport) -> None:
        """Expect the first request."""
        super().connection_made(cast("Transport", transport))
        self._extensions = {SHORTCUT: Shortcut(self, self.transport.write)}
        self.transport = cast("Transport", HeadWithBody(self.transport, self.loop))
        self._start_timer(self.head_timeout_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._stop_waiting_for_room()
        if self._under_way is not None and self._under_way is not self.cycle:
            # uvicorn tells the request that came last, and this one may still wait with others behind it.
            self._under_way.disconnected = True
            self._under_way.message_event.set()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._answering.end()
        if self._tunnel is not None:
            self._tunnel.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, and look closer where that ended neither in a body nor with a whole head."""
        if self._tunnel is not None:
            self._tunnel.data_received(data)
            return
        if self._refused:
            return
        if self._upgrading:
            self._keep_early(data)
            return
        self._unread_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._begin_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._unread_bytes or self.scope is not self._begun:
            self._watch()

    def on_message_begin(self) -> None:
        """The first byte of a request: its scope, which tells it from others, begins here."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._hosts = 0
        self.scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": cast("Any", self.scheme),
            "root_path": "",
            "headers": self.headers,
            "extensions": self._extensions,
            # Known at the end of its head.
            "method": "",
            "path": "",
            "raw_path": b"",
            "query_string": b"",
        }

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of a head; those behind a body are no part of it."""
        if self.scope is self._begun:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The end of a head: answer the request, or let it wait for those before it.

        Raises:
            InvalidRequest: It breaks a limit; the parser makes its own error of that, and `send_400_response` follows.
        """
        parser, scope = self.parser, self.scope
        version = parser.get_http_version()
        upgrade = parser.should_upgrade()
        self._check_head(version, upgrade)
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        if version != "1.1":
            scope["http_version"] = version
        if upgrade and scope["method"] == "GET":
            scope["extensions"] = {TUNNEL: cast("Any", self._give_up)}
        before: RequestResponseCycle | None = self.cycle
        self.cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._begun = scope
        self._unread_bytes = 0
        if self._timer is not None:
            self._stop_timer()
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The caller says no more, which ends the connection, unless that speaks another protocol."""
        return None if self._tunnel is None else self._tunnel.eof_received()

    def pause_writing(self) -> None:
        """The caller takes no more for now, and may be gone for good."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stalled_seconds, self.transport.abort)
        if self._tunnel is not None:
            self._tunnel.pause_writing()

    def resume_writing(self) -> None:
        """It goes on."""
        super().resume_writing()
        self._stop_waiting_for_room()
        if self._tunnel is not None:
            self._tunnel.resume_writing()

    def on_body(self, body: bytes) -> None:
        """A piece of a body; a request that has its answer is watched while the rest of it comes."""
        super().on_body(body)
        self._unread_bytes = 1 if self.cycle.response_complete else 0

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        # One timer for many requests: it looks when the last of them was.
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._expect_within(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing has come for so long."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing() or not self._idle or self._unread_bytes:
            return  # the end of that request, or the timer of its head, sees to it
        left_seconds = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_seconds > 0:
            self._expect_within(left_seconds)
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser gave up on."""
        self._refuse(self._fault or MalformedRequest(f"{msg} The server speaks HTTP/1.1 with the standard methods."))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._under_way = cycle
        if not self._answering.take(cycle, app):
            task = self.loop.create_task(answer(cycle, app))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    def _expect_within(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _check_head(self, version: str, upgrade: bool) -> None:
        if (
            len(self.headers) > self.max_headers
            or len(self.url) > self.max_url_bytes
            # Of a head behind another request in the same read nothing is counted, and a body's first bytes are.
            or not 0 < self._unread_bytes <= self.max_head_bytes
        ):
            self._fault = self._fault_of_head(size_of_head(self.url, self.headers))
            if self._fault is not None:
                raise self._fault
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            self._fault = MalformedRequest("A request of HTTP/1.1 has one Host header, naming whom it is meant for.")
            raise self._fault
        if upgrade and has_body(self.headers):
            self._fault = MalformedRequest("A request that asks for another protocol can have no body.")
            raise self._fault

    def _begin_upgrade(self, rest: bytes) -> None:
        """A request that asks for another protocol is the last one of HTTP, whatever becomes of it."""
        self._upgrading = True
        self.cycle.keep_alive = False
        self._keep_early(rest)

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > MAX_EARLY_BYTES:
            self.transport.close()

    def _give_up(self, head: bytes, protocol: Protocol) -> tuple[Transport, bytes]:
        """Answer with this head, and let `protocol` have the connection."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        self.cycle.response_started = self.cycle.response_complete = True
        self._tunnel = protocol
        self.flow.resume_reading()
        self.transport.write(head)
        early, self._early = self._early, b""
        return self.transport, early

    @property
    def _in_head(self) -> bool:
        return self.scope is not self._begun  # each request begins with a scope of its own

    @property
    def _idle(self) -> bool:
        """Whether no request awaits its answer."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it without the None that it begins with
        return cycle is None or cycle.response_complete

    def _watch(self) -> None:
        """Hold what has come so far of a head, or of what frames a body, to the limits."""
        if self._refused:
            return
        if (fault := self._fault_of_head(self._unread_bytes)) is not None:
            self._refuse(fault)
        elif self._in_head:
            if self._timed is not self.scope:
                self._start_timer(self.head_timeout_seconds)
                self._timed = self.scope
        elif self._idle and self._timer is None:
            # Any byte ends uvicorn's own wait for the next request; when it began none, the wait goes on here.
            self._start_timer(self.timeout_keep_alive)

    def _fault_of_head(self, size: int) -> InvalidRequest | None:
        if self._in_head and len(self.url) > self.max_url_bytes:
            return UrlTooLong(f"The URL is longer than {self.max_url_bytes} bytes.")
        if self._in_head and len(self.headers) > self.max_headers:
            return HeadTooLarge(f"The request has more than {self.max_headers} headers.")
        if size > self.max_head_bytes:
            return HeadTooLarge(f"The request's headers are larger than {self.max_head_bytes} bytes in all.")
        return None

    def _refuse(self, error: InvalidRequest) -> None:
        """Read nothing more, and say why, unless that would end up inside of another answer."""
        self._refused = True
        self._stop_timer()
        log.info("request refused: %s", error.message)
        if self._idle:
            self._say(error)
        elif self._in_head:  # the requests before it get their answers, and then the connection ends
            self.cycle.keep_alive = False
        elif self.pipeline or self.cycle.response_started:
            self.transport.close()
        else:  # the rest of its body will not come
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._say(error)

    def _say(self, error: InvalidRequest) -> None:
        self.transport.write(refusal(error, self.server_state.default_headers))
        if self.transport.can_write_eof():  # TLS cannot
            self.transport.write_eof()
        self._timer = self.loop.call_later(self.linger_seconds, self.transport.close)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_waiting_for_room(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _time_is_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it may have come long ago: it is the server that does not read
            self._start_timer(self.head_timeout_seconds)
        elif self._in_head:
            self._refuse(HeadTooSlow(f"The request's headers took longer than {self.head_timeout_seconds:g} s."))
        else:
            self.transport.close()
