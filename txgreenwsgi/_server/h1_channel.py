"""One HTTP/1.1 connection: its transport, and the exchanges in turn.

The parsed events wait in an inbox. `_pump` hands them out, one exchange at a time;
it runs in the reactor greenlet only. While the inbox holds events that no exchange
can use yet, reading from the client is paused.

This file owns a transport. It must never know the application.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.interfaces import IProtocol, ITCPTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._http.framing import CLOSE
from txgreenwsgi._http.h1 import BODY, COMPLETE, Connection
from txgreenwsgi._http.head import END, Refusal, RequestHead
from txgreenwsgi._http.writer import STATUSES
from txgreenwsgi._serving.body import BadBody
from txgreenwsgi._serving.exchange import ENDED, Exchange
from txgreenwsgi._serving.plain_response import plain_response
from txgreenwsgi._serving.stream import concurrent_write_error
from txgreenwsgi._states import TransitionTable
from txgreenwsgi._switching.greenlets import SLICE_SECONDS
from txgreenwsgi._wsgi.input import MOST_PIECE_BYTES
from txgreenwsgi.monitoring.records import ExchangeRecord

from .ends import ends_of
from .output import SocketOutput, output_for
from .sockets import DONE

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from txgreenwsgi._http.parser import Event, HeadLimits
    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._serving.stream import Carried, Ends, Output

    from .sockets import Sockets

__all__ = [
    "CLOSED",
    "CONNECTION",
    "DRAINING",
    "HEAD",
    "IDLE",
    "LINGERING",
    "SERVING",
    "H1Channel",
]

_log = Logger()

#: No request, and no byte of one.
IDLE: Final = "idle"
#: A part of a request head was received.
HEAD: Final = "head"
#: An exchange is in progress.
SERVING: Final = "serving"
#: The exchange has ended; the rest of its request body is read and discarded.
DRAINING: Final = "draining"
#: The last response was sent; bytes that still come are read and discarded.
LINGERING: Final = "lingering"
#: The connection is lost, or was cut.
CLOSED: Final = "closed"

CONNECTION: Final = TransitionTable(
    "an HTTP/1.1 connection",
    {
        IDLE: {"bytes": HEAD, "request": SERVING, "close": LINGERING, "lose": CLOSED},
        HEAD: {"request": SERVING, "close": LINGERING, "lose": CLOSED},
        SERVING: {
            "next": IDLE,
            "drain": DRAINING,
            "close": LINGERING,
            "lose": CLOSED,
        },
        DRAINING: {"next": IDLE, "close": LINGERING, "lose": CLOSED},
        LINGERING: {"lose": CLOSED},
        CLOSED: {"lose": CLOSED},
    },
)

_ON_BYTES: Final = CONNECTION.moves("bytes")
_ON_REQUEST: Final = CONNECTION.moves("request")
_ON_NEXT: Final = CONNECTION.moves("next")
_ON_DRAIN: Final = CONNECTION.moves("drain")
_ON_CLOSE: Final = CONNECTION.moves("close")
_ON_LOSE: Final = CONNECTION.moves("lose")

#: Time for a connection to close, and for a request body to be drained.
CLOSE_SECONDS = 5.0

#: The unread rest of a request body is drained up to this size, so that the
#: connection persists; with more to come it is closed.
DRAIN_BYTES = 256 * 1024

#: A lingering connection discards this much before it is cut. Many clients send a
#: whole upload before they read the response.
_LINGER_BYTES = 16 * 1024 * 1024

#: Size of a read from a socket.
_READ_BYTES = 65536

# The inbox of all connections without events: an empty deque takes 600 bytes. Never
# changed.
_NOTHING: deque[Event] = deque(maxlen=0)

_NO_ENDS = cast("Ends", None)

#: Minimum size of a read for a reader of the body: smaller reads are rounded up,
#: which saves a recv.
_LEAST_READ_BYTES = 16384


@implementer(IProtocol)
class H1Channel:
    """The Twisted protocol of one HTTP/1.1 connection, and the stream of its exchanges.

    Args:
        server: of the application.
        sockets: watches the plain connections of the site.
        head_limits: limits on request heads.

    Attributes:
        state: one of the states of `CONNECTION`.
        server: as given.
        ends: both ends of the connection, from the first request on.
        hub: the reactor's tasks.
        transport: None before the connection is made and after it is lost.
        output: sends to the transport.
        exchange: in progress or draining; None otherwise.
        reading_paused: whether the transport was told to stop reading.
    """

    __slots__ = (
        "_close_at",
        "_discarded",
        "_fd",
        "_h1",
        "_inbox",
        "_pumping",
        "_since",
        "_sockets",
        "ends",
        "exchange",
        "hub",
        "output",
        "reading_paused",
        "server",
        "state",
        "transport",
    )

    output: Output

    def __init__(
        self, server: ApplicationServer, sockets: Sockets, head_limits: HeadLimits
    ) -> None:
        self.state = IDLE
        self.server = server
        self.hub = server.hub
        self.transport: Any = None
        self.exchange: Exchange | None = None
        self.reading_paused = False
        self._sockets = sockets
        self._h1 = Connection(head_limits, server.common)
        self._inbox = _NOTHING
        self._pumping = False
        self._discarded = 0
        # When the state became IDLE, HEAD or DRAINING.
        self._since = 0.0
        self._close_at = 0.0
        # Set at the first request: most idle connections never ask for it.
        self.ends = _NO_ENDS
        # The descriptor under which `sockets` watches the connection; -1 where the
        # reactor watches the transport.
        self._fd = -1

    # Called by the transport.

    def makeConnection(self, transport: Any) -> None:
        """Take the transport of the new connection."""
        self.transport = transport
        self._since = self.hub.reactor.seconds()
        if self._sockets.adopt(self, transport):
            self._fd = transport.fileno()
        elif ITCPTransport.providedBy(transport):
            # Head and body leave in one send, so there is nothing to coalesce.
            transport.setTcpNoDelay(True)
        self.output = output_for(transport, self._broken)
        self.server.connection_made(self)

    def connectionMade(self) -> None:
        """Do nothing: part of IProtocol; `makeConnection` does everything."""

    def logPrefix(self) -> str:
        """Return the name of this protocol in Twisted's log lines."""
        return "txgreenwsgi"

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the client."""
        state = self.state
        if (state is IDLE or state is HEAD) and not self._pumping:
            h1 = self._h1
            events = h1.feed(data, True)
            if len(events) == 2 and events[1] is END:
                # Most requests: complete, and without a body.
                self._begin(events[0], True)  # type: ignore[arg-type]
                if not h1.has_unread:
                    return
            else:
                self._put(events)
            self._pump()
        elif state is LINGERING or state is CLOSED:
            # Bytes that stay unread in the kernel would reset the connection, and
            # the client would lose the response.
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self.abort()
        else:
            self._put(self._h1.feed(data, True))
            if not self._pumping:
                self._pump()

    def readable(self) -> BaseException | None:
        """Read from the socket; return the reason if the connection is lost."""
        try:
            data = self.transport.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.dataReceived(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Take note that the connection is lost, for whatever reason."""
        self.state = _ON_LOSE[self.state]
        self._drop_input()
        self.output.disconnected()
        if self._fd >= 0:
            self._sockets.forget(self, self._fd)
        exchange = self.exchange
        self.exchange = None
        self.server.connection_lost(self)
        if exchange is not None:
            exchange.peer_lost()
            if exchange.state is not ENDED:
                self.server.detach(exchange)
        self.transport = None

    def hung_up(self) -> None:
        """Take note that the client left while reading was paused."""
        self.abort()

    def _broken(self) -> None:
        """Cut the connection: nothing more can be sent in good order."""
        self.state = _ON_LOSE[self.state]
        if self.exchange is not None:
            self.exchange.peer_lost()
        self.abort()

    # The inbox.

    def _put(self, events: list[Event]) -> None:
        if not self._inbox:
            self._inbox = deque()
        self._inbox.extend(events)

    def _drop_input(self) -> None:
        self._inbox = _NOTHING
        self._h1.stop()

    def _pump(self) -> None:
        """Hand out the events of the inbox, and what the parser left unread."""
        self._pumping = True
        h1 = self._h1
        try:
            while self._inbox or h1.has_unread:
                exchange = self.exchange
                if exchange is None:
                    if not self._inbox:
                        self._put(h1.feed(b"", True))
                        continue
                    event = self._inbox.popleft()
                    if type(event) is RequestHead:
                        self._begin(event)
                    elif type(event) is Refusal:
                        self._refuse(event)
                elif exchange.body.complete:
                    break  # the next request waits for the end of this one
                else:
                    self._hand_body(exchange, self._inbox.popleft())
            if not self._inbox:
                self._inbox = _NOTHING
        finally:
            self._pumping = False
        if h1.pending and self.state is IDLE:
            self.state = _ON_BYTES[self.state]
            self._since = self.hub.reactor.seconds()
        if self.reading_paused or self.exchange is not None:
            self.update_backpressure()

    def _hand_body(self, exchange: Exchange, event: Event) -> None:
        if event is END:
            exchange.body.ended()
            if self.state is DRAINING:
                self._next_exchange()
        elif type(event) is Refusal:
            exchange.body.fail(BadBody(event.status, event.reason))
        else:
            exchange.body.received(event)  # type: ignore[arg-type]

    def _begin(self, head: RequestHead, complete: bool = False) -> None:
        """Begin an exchange; `complete` if the request has no body."""
        self.state = _ON_REQUEST[self.state]
        if self.ends is _NO_ENDS:
            self._find_ends()
        self._h1.begin(head)
        self.exchange = exchange = Exchange(self, self.server, head, complete)
        if not complete:
            # Body bytes that came with the head are there before the application
            # asks for them.
            while self._inbox and not exchange.body.complete:
                self._hand_body(exchange, self._inbox.popleft())
        exchange.admit()

    def _find_ends(self) -> None:
        self.ends = ends_of(
            self.transport, self.server.settings.url_scheme, self._sockets.addresses
        )

    def _refuse(self, refusal: Refusal) -> None:
        """Answer bytes that are no request; no byte after them is interpreted."""
        status = STATUSES[refusal.status]
        self._find_ends()
        ends = self.ends
        _log.info(
            "refused a request from {address}: {status}, {reason}",
            address=ends.remote_addr or "a UNIX socket",
            status=refusal.status,
            reason=refusal.reason,
        )
        head, body = plain_response(status, refusal.reason)
        table = self.server.table
        if table.observers:
            table.observe(
                ExchangeRecord(
                    remote_addr=ends.remote_addr,
                    remote_port=ends.remote_port,
                    started=time(),
                    duration=0.0,
                    method="",
                    target="",
                    version="",
                    status=head.code,
                    bytes_sent=len(body),
                    request_id=table.next_id(),
                    referer="",
                    user_agent="",
                    outcome="refused",
                )
            )
        self.output.send_last(self._h1.send_answer(head, body))
        self._close_lingering()

    # The stream of the exchange in progress.

    @property
    def connected(self) -> bool:
        """Whether the client is there, as far as is known."""
        return self.state is not CLOSED

    def start(
        self, head: ResponseHead, length: int | None, block: bytes, end: bool
    ) -> None:
        """Send the head and the first block in one piece. May park."""
        h1 = self._h1
        persist = (
            self.server.keeps_alive and h1.persistent and self.exchange.body.complete  # type: ignore[union-attr]
        ) or self._may_persist()
        data = h1.send_head(head, length, block, end, persist)
        output = self.output
        if type(data) is bytes:
            output.send(data)
        else:
            output.send_parts(*data)
        if not end and output.left_behind:
            output.hand_over()

    def data(self, block: bytes) -> None:
        """Send a block. May park."""
        data = self._h1.send_data(block)
        output = self.output
        if type(data) is bytes:
            output.send(data)
        else:
            output.send_parts(*data)
        if output.left_behind:
            # No block is delayed until the application's next one (PEP 3333).
            output.hand_over()

    def send_file(
        self, head: ResponseHead, length: int, fd: int, offset: int, count: int
    ) -> int | None:
        """Send the head, and a part of a file by the kernel. May park."""
        start = self._h1.send_head(head, length, b"", False, self._may_persist())
        assert type(start) is bytes, "a head alone is one piece"
        sent = self.output.send_file(start, fd, offset, count)
        if sent is None:
            self.output.send(start)
        return sent

    def more_of_file(self, fd: int, offset: int, count: int) -> int:
        """Send more of a file by the kernel. May park."""
        return self.output.send_file(b"", fd, offset, count) or 0

    def finish(self) -> None:
        """End the response. May park."""
        if self.output.waiting is not None:
            raise concurrent_write_error()
        if self._h1.sending is BODY:
            data = self._h1.send_end()
            if data:
                self.output.send(data)

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole response of the server's own, and close."""
        exchange = self.exchange
        if exchange is None:
            return
        self.output.send_last(self._h1.send_answer(head, body))
        self._close_behind(exchange)
        if exchange.state is not ENDED:
            self.server.detach(exchange)

    def break_off(self) -> None:
        """Leave the response incomplete (RFC 9112 section 8).

        The missing bytes tell the client, once `ended` closes the connection; a
        response that is delimited by the close is cut.
        """
        self._h1.persistent = False
        if self._h1.framing is CLOSE:
            self.abort()

    def reset(self) -> None:
        """Cut the connection."""
        self.abort()

    def ended(self, exchange: Carried) -> None:
        """Go on with the next request, or close."""
        served = self.exchange
        if served is not exchange or served is None:
            return  # the connection is lost, or closes behind an answer
        h1 = self._h1
        if self.state is not SERVING:
            self.exchange = None
        elif h1.sending is not COMPLETE or not h1.persistent:
            self._close_behind(served)
        elif served.body.complete:
            self._next_exchange()
        else:
            # `_hand_body` goes on at the end of the body.
            self.state = _ON_DRAIN[self.state]
            self._since = self.hub.reactor.seconds()
            if self.reading_paused:
                self.update_backpressure()

    def _next_exchange(self) -> None:
        """Wait for the next request, which may have come already."""
        self.exchange = None
        self.state = _ON_NEXT[self.state]
        self._since = self.hub.reactor.seconds()
        h1 = self._h1
        if not self._pumping and (self._inbox or h1.has_unread or h1.pending):
            self._pump()
            return
        if self.reading_paused:
            self.update_backpressure()
        if self.server.shutdown.stopping:
            self.stop()

    @property
    def _request_waits(self) -> bool:
        """Whether more was received behind the request in progress."""
        return bool(self._inbox) or self._h1.has_unread

    def _may_persist(self) -> bool:
        """Return whether another request may follow the one that is answered now."""
        body = self.exchange.body  # type: ignore[union-attr]
        if body.client_waits:
            # With the response it needs no 100 Continue any more.
            body.client_waits = False  # type: ignore[misc]
            if not body.complete:
                # It may or may not send the body: the next bytes are ambiguous.
                return False
        server = self.server
        if not self._h1.persistent or not server.settings.keep_alive:
            return False
        if server.shutdown.stopping and not self._request_waits:
            # A request that was received is answered; others go elsewhere.
            return False
        return body.complete or body.most_left_to_come <= DRAIN_BYTES

    # The request body.

    def send_continue(self) -> None:
        """Send a 100 response. May park."""
        self.output.send(self._h1.send_continue())

    def stop_receiving(self) -> None:
        """Ignore what the client still sends, and close after the response."""
        self._h1.stop_receiving()

    def update_backpressure(self) -> None:
        """Pause reading while no exchange can use what would come; else resume."""
        exchange = self.exchange
        wanted = (
            exchange is None
            or self.state is LINGERING
            or self.state is CLOSED
            or not (
                exchange.body.full or (exchange.body.complete and self._request_waits)
            )
        )
        if wanted and self.reading_paused:
            self._resume_reading()
        elif not wanted and not self.reading_paused and self.transport is not None:
            self.reading_paused = True
            if self._fd >= 0:
                self._sockets.notice_leaving(self._fd, True)
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        self.reading_paused = False
        if self.transport is not None:
            self.transport.resumeProducing()
            if self._fd >= 0:
                self._sockets.notice_leaving(self._fd, False)

    def read_body(self, wanted: int) -> bytes | None:
        """Read a piece of the body for the task that asks, without parking.

        Saves a turn of the reactor. Call in that task, when it has taken all
        earlier pieces.

        Returns:
            b"" if nothing has come; None if the pieces went to the body.
        """
        if self._fd < 0 or self.reading_paused or self._inbox:
            return b""
        if self.state is not SERVING:
            return b""
        hub = self.hub
        if hub.reactor.seconds() - hub.resumed_at > SLICE_SECONDS:
            return b""  # a fast client must not keep the reactor
        size = min(max(wanted, _LEAST_READ_BYTES), MOST_PIECE_BYTES)
        try:
            data: bytes = self.transport.socket.recv(size)
        except OSError:
            return b""  # nothing there, or an error that the reactor will meet
        if not data:
            return b""  # likewise the end
        if self._h1.is_piece(data):
            return data
        self._put(self._h1.feed(data, True))
        if self._pumping:
            return b""  # it is handed out when the task parks
        self._pump()
        return None

    # Closing.

    def stop(self) -> None:
        """Close, now that the server stops, if no request is in progress or coming."""
        if self.exchange is not None or self.state is LINGERING:
            return
        if self.state is not CLOSED and not self._more_comes():
            self._close()

    def end_of_grace(self) -> None:
        """Close if no request is in progress: the grace period is over."""
        if self.exchange is None:
            self._close()

    def _more_comes(self) -> bool:
        """Return whether the client sent more than was interpreted, as far as seen."""
        return bool(self._inbox) or not self._h1.idle or self.output.more_waits()

    def _close(self) -> None:
        """Close in good order: all bytes sent arrive."""
        if self.state is LINGERING or self.state is CLOSED:
            return
        self._begin_closing()
        transport = self.transport
        self.output.detach()
        if self._fd >= 0 and not self.output.left_behind:
            # Twisted would attempt an empty send, and take a turn for it.
            transport.stopReading()
            self.hub.at_next_turn(partial(transport.connectionLost, DONE))
            return
        transport.loseConnection()
        below = getattr(transport, "transport", None)
        if isinstance(below, TCPConnection):
            # TLS would wait for the client's close_notify too, which is optional
            # (RFC 8446 section 6.1). All bytes are in the buffer below.
            below.loseConnection()

    def _close_behind(self, exchange: Exchange) -> None:
        """Close after the last exchange."""
        # A client that asked for the close sends nothing more (RFC 9112 section 9.6).
        if exchange.body.complete and (
            not (exchange.head.keep_alive or self._request_waits)
            or not self._more_comes()
        ):
            self._close()
        else:
            self._close_lingering()
        self.exchange = None

    def _close_lingering(self) -> None:
        """Close the sending side; read and discard what still comes for a while.

        A close with unread bytes in the kernel resets the connection, and the
        client may lose the response (RFC 9112 section 9.6).
        """
        if self.state is LINGERING or self.state is CLOSED:
            return
        self._begin_closing()
        self.output.detach()
        if isinstance(self.output, SocketOutput):
            self.transport.loseWriteConnection()
        else:
            # TLS sends close_notify, and reads until the client's has come.
            self.transport.loseConnection()

    def _begin_closing(self) -> None:
        self.state = _ON_CLOSE[self.state]
        seconds = CLOSE_SECONDS
        if not isinstance(self.output, SocketOutput):
            # The transport may still buffer a part of the response.
            seconds = self.server.limits.write_seconds or float("inf")
        self._close_at = self.hub.reactor.seconds() + seconds
        self._drop_input()
        if self.reading_paused:
            self._resume_reading()

    def abort(self) -> None:
        """Cut the connection, so that the client sees that bytes are missing."""
        self.state = _ON_LOSE[self.state]
        self._close_at = self.hub.reactor.seconds() + CLOSE_SECONDS
        self._drop_input()
        if self.transport is not None:
            self.output.detach()
            if self.reading_paused and self._fd >= 0:
                self._sockets.notice_leaving(self._fd, False)
            self.transport.abortConnection()

    def check(self, now: float) -> None:
        """Apply the deadlines of the connection and its exchange."""
        state = self.state
        settings = self.server.settings
        if state is SERVING:
            if self.exchange is not None:
                self.exchange.check(now)
        elif state is IDLE:
            limit = settings.keep_alive or settings.header_timeout
            if limit and now - self._since >= limit:
                self._close()
            elif self.server.shutdown.stopping:
                self.stop()
        elif state is HEAD:
            limit = settings.header_timeout
            if limit and now - self._since >= limit:
                self._refuse(Refusal(408, f"no complete head in {limit:g} seconds"))
        elif state is DRAINING:
            if now - self._since >= CLOSE_SECONDS:
                self._close_lingering()
        elif now >= self._close_at:
            self.abort()
