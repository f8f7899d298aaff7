"""One HTTP/1.1 connection: its transport, and its exchanges one after the other.

Parsed events are queued in an inbox. `_pump` dispatches them, one exchange at a
time, in the reactor greenlet only. While the inbox holds events that no exchange
can use yet, reading from the client is paused.

This file owns a transport. It must never know the application.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection as TCPConnection
from zope.interface import implementer

from txgreenwsgi._http.framing import CLOSE
from txgreenwsgi._http.h1 import BODY, COMPLETE, Connection
from txgreenwsgi._http.head import END, Refusal, RequestHead
from txgreenwsgi._native import lanes
from txgreenwsgi._serving.body import BadBody
from txgreenwsgi._serving.exchange import ENDED, Exchange
from txgreenwsgi._serving.stream import concurrent_write_error
from txgreenwsgi._serving.upgrade import UpgradedStream, offers_websocket
from txgreenwsgi._states import TransitionTable
from txgreenwsgi._wsgi.input import MAX_PIECE_BYTES

from .channel import (
    CLOSE_SECONDS,
    CLOSED,
    DRAIN_BYTES,
    DRAIN_CLOSE_SECONDS,
    LINGERING,
    NO_ENDS,
    NO_TRANSPORT,
    READ_BYTES,
    Channel,
)
from .output import UNKNOWN, DirectOutput, SocketOutput, output_for
from .sockets import DONE

if TYPE_CHECKING:
    from twisted.internet.interfaces import ITransport
    from twisted.python.failure import Failure

    from txgreenwsgi._http.parser import Event, HeadLimits
    from txgreenwsgi._http.writer import EarlyHints, ResponseHead
    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._serving.stream import Carried, Output
    from txgreenwsgi._switching.greenlets import Suspension

    from .handshakes import Handshakes
    from .proxied_address import ProxiedAddress
    from .sockets import Sockets

__all__ = [
    "CLOSED",
    "CONNECTION",
    "DRAINING",
    "HEAD",
    "IDLE",
    "LINGERING",
    "SERVING",
    "UPGRADED",
    "H1Channel",
]

#: No byte of a request was received.
IDLE: Final = "idle"
#: A part of a request head was received.
HEAD: Final = "head"
#: An exchange is in progress.
SERVING: Final = "serving"
#: The exchange in progress has switched to another protocol.
UPGRADED: Final = "upgraded"
#: The exchange has ended; the rest of its request body is read and discarded.
DRAINING: Final = "draining"

CONNECTION: Final = TransitionTable(
    "an HTTP/1.1 connection",
    {
        IDLE: {"bytes": HEAD, "request": SERVING, "close": LINGERING, "lose": CLOSED},
        HEAD: {"request": SERVING, "close": LINGERING, "lose": CLOSED},
        SERVING: {
            "next": IDLE,
            "drain": DRAINING,
            "upgrade": UPGRADED,
            "close": LINGERING,
            "lose": CLOSED,
        },
        UPGRADED: {"close": LINGERING, "lose": CLOSED},
        DRAINING: {"next": IDLE, "close": LINGERING, "lose": CLOSED},
        LINGERING: {"lose": CLOSED},
        CLOSED: {"lose": CLOSED},
    },
)

_ON_BYTES: Final = CONNECTION.moves("bytes")
_ON_REQUEST: Final = CONNECTION.moves("request")
_ON_NEXT: Final = CONNECTION.moves("next")
_ON_DRAIN: Final = CONNECTION.moves("drain")
_ON_UPGRADE: Final = CONNECTION.moves("upgrade")
_ON_CLOSE: Final = CONNECTION.moves("close")
_ON_LOSE: Final = CONNECTION.moves("lose")

# The shared inbox of all connections without events: an empty deque takes 600 bytes.
# Never modified.
_EMPTY_INBOX: deque[Event] = deque(maxlen=0)
lanes.lend(
    empty_inbox=_EMPTY_INBOX,
    connection_done=CONNECTION_DONE,
    connection_lost=CONNECTION_LOST,
)

#: Size of decoded data above which further chunks of a body stay encoded: small chunks
#: must not take the memory of a whole window twice.
_DECODED_BYTES = 16384

#: Minimum size of a body read: smaller reads are rounded up to save a recv.
_MIN_READ_BYTES = 16384


@lanes.with_lanes
@implementer(IProtocol, IHandshakeListener)
class H1Channel(Channel, lanes.H1ChannelState):
    """The Twisted protocol of one HTTP/1.1 connection, and the stream of its exchanges.

    Args:
        server: the application's server.
        sockets: the poller of the site's plain connections.
        head_limits: limits on request heads.
        handshakes: the TLS handshakes in progress on the connections of the site.
        proxied: the client's address, if a proxy has named it by the PROXY protocol.

    Attributes:
        state: one of the states of `CONNECTION`.
        server: as given.
        ends: both ends of the connection; set at the first request.
        transport: the transport; None before the connection is made and after it
            is lost.
        output: the send side of the transport.
        exchange: the exchange in progress or draining; None otherwise.
        reading_paused: whether reading from the transport is paused.
    """

    __slots__ = lanes.slots(
        lanes.H1ChannelState,
        (
            "_discarded",
            "_fd",
            "_h1",
            "_handshakes",
            "_inbox",
            "_proxied",
            "_pumping",
            "_sockets",
            "_time",
            "_unaccepted",
            "ends",
            "exchange",
            "output",
            "reading_paused",
            "server",
            "state",
            "transport",
        ),
    )

    output: Output
    body_is_stored = False

    def __init__(
        self,
        server: ApplicationServer,
        sockets: Sockets,
        head_limits: HeadLimits,
        handshakes: Handshakes,
        proxied: ProxiedAddress | None = None,
    ) -> None:
        self.state = IDLE
        self.server = server
        self.transport = NO_TRANSPORT
        self.exchange: Exchange | None = None
        self.reading_paused = False
        self._sockets = sockets
        self._handshakes = handshakes
        self._proxied = proxied
        self._h1 = Connection(head_limits, server.common)
        self._inbox = _EMPTY_INBOX
        self._pumping = False
        self._discarded = 0
        self._unaccepted = UNKNOWN
        # Time at which the state became IDLE, HEAD or DRAINING; in LINGERING and
        # CLOSED, the time at which to abort the connection.
        self._time = 0.0
        # Set at the first request: most idle connections never need it.
        self.ends = NO_ENDS
        # The descriptor under which `sockets` watches the connection; -1 where the
        # reactor watches the transport.
        self._fd = -1

    @property
    def waiting(self) -> Suspension | None:
        """The suspension of the task that is parked by backpressure."""
        return self.output.waiting

    # Called by the transport.

    def makeConnection(self, transport: ITransport) -> None:
        """Attach the transport of a new connection."""
        self.transport = transport  # type: ignore[assignment]
        self._time = self.server.hub.seconds()
        if self._sockets.adopt(self, transport):
            self._fd = self.transport.fileno()
        else:
            if ITCPTransport.providedBy(transport):
                # Head and body leave in one send, so there is nothing to coalesce.
                transport.setTcpNoDelay(True)
            if ISSLTransport.providedBy(transport):
                self._handshakes.begin(self)
        self.output = output_for(self.transport, self)
        self.server.connection_made(self)

    def handshakeCompleted(self) -> None:
        """Handle the end of the TLS handshake: the connection is idle from now on."""
        self._handshakes.end(self)
        self._time = self.server.hub.seconds()

    def dataReceived(self, data: bytes) -> None:
        """Parse bytes from the client."""
        state = self.state
        if (state is IDLE or state is HEAD) and not self._pumping:
            h1 = self._h1
            events = h1.feed(data, True)
            if len(events) == 2 and events[1] is END:
                # The common case: a complete request without a body.
                self._begin(events[0], True)  # type: ignore[arg-type]
                if not h1.has_unread:
                    return
            else:
                self._put(events)
            self._pump()
        elif state is LINGERING or state is CLOSED:
            self._discard(data)
        elif state is UPGRADED:
            if self.exchange is not None:
                self.exchange.body.received(data)
                self.update_backpressure()
        else:
            self._put(self._h1.feed(data, True))
            if not self._pumping:
                self._pump()

    def doRead(self) -> BaseException | None:
        """Read from the socket; return the reason if the connection is lost."""
        try:
            data = self.transport.socket.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            if self.outlives_input:
                self.readConnectionLost()
                return None
            return CONNECTION_DONE
        self.dataReceived(data)
        return None

    @property
    def outlives_input(self) -> bool:
        """Whether the application has a socket, on which it may still send.

        False where the end of the input cancels requests.
        """
        exchange = self.exchange
        return (
            self.state is UPGRADED
            and exchange is not None
            and isinstance(exchange.body, UpgradedStream)
            and exchange.body.may_outlive_input
            and not self._cancels_at_end(exchange)
        )

    def _cancels_at_end(self, exchange: Exchange) -> bool:
        """Return whether the end of the input cancels an upgraded request."""
        return exchange.limits.cancel_on_disconnect

    def _upgraded_input_ended(self) -> bool:
        body = None if self.exchange is None else self.exchange.body
        return isinstance(body, UpgradedStream) and body.client_ended

    def __conform__(self, interface: object) -> object:
        """Support a half-closed connection while the application has a socket."""
        if interface is IHalfCloseableProtocol and self.outlives_input:
            return self
        return None

    def readConnectionLost(self) -> None:
        """End the input of an upgraded exchange: the application may still send."""
        exchange = self.exchange
        assert exchange is not None, "the input of an upgraded exchange has ended"
        body = exchange.body
        assert isinstance(body, UpgradedStream), "it was upgraded"
        body.client_ended = True
        # Not watched for a hang-up, which the end of the input is.
        self.reading_paused = True
        self.transport.pauseProducing()
        body.ended()

    def writeConnectionLost(self) -> None:
        """No-op, required by IHalfCloseableProtocol."""

    def hung_up(self) -> None:
        """Handle a disconnect while reading is paused."""
        if self.outlives_input:
            # The bytes before it were not read yet.
            self._sockets.watch_hang_up(self._fd, False)
        else:
            super().hung_up()

    def connectionLost(self, reason: Failure) -> None:
        """Handle the loss of the connection, for any reason."""
        if self.state is not LINGERING:
            self._drop_input()
        self.state = _ON_LOSE[self.state]
        self.output.disconnected()
        if self._fd >= 0:
            self._sockets.forget(self, self._fd)
        else:
            self._handshakes.end(self)
        exchange = self.exchange
        self.exchange = None
        self.server.connection_lost(self)
        if exchange is not None:
            exchange.peer_lost()
            if exchange.state is not ENDED:
                self.server.detach(exchange)
        self.transport = NO_TRANSPORT

    def send_failed(self) -> None:
        """Abort the connection after a failed or incomplete send."""
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
        self._inbox = _EMPTY_INBOX
        self._h1.stop()

    def _pump(self, in_turn: bool = False) -> None:
        """Dispatch the events of the inbox, and the bytes that the parser left.

        If they take longer than a time slice, dispatch the rest at a later turn of the
        reactor (`in_turn`).
        """
        self._pumping = True
        h1 = self._h1
        end = 0.0
        postponed = False
        try:
            while self._inbox or h1.has_unread:
                exchange = self.exchange
                if exchange is not None:
                    body = exchange.body
                    if body.complete:
                        break  # the next request waits until this one ends
                    if not self._inbox and (body.full or body.held >= _DECODED_BYTES):
                        break
                if not self._inbox:
                    hub = self.server.hub
                    now = hub.reactor.seconds()
                    if not end:
                        end = now
                        if in_turn or self._fd >= 0:  # else no loop of ours is running
                            end += hub.slice_seconds
                    elif now > end:
                        postponed = True
                        break
                    events = h1.feed(b"", True)
                    if exchange is None and len(events) == 2 and events[1] is END:
                        self._begin(events[0], True)  # type: ignore[arg-type]
                    else:
                        self._put(events)
                elif exchange is None:
                    event = self._inbox.popleft()
                    if type(event) is RequestHead:
                        self._begin(event)
                    elif type(event) is Refusal:
                        self._refuse(event)
                else:
                    self._hand_body(exchange, self._inbox.popleft())
            if not self._inbox:
                self._inbox = _EMPTY_INBOX
        finally:
            self._pumping = False
        if postponed:
            self._postpone()
            return
        if h1.pending and self.state is IDLE:
            self.state = _ON_BYTES[self.state]
            self._time = self.server.hub.seconds()
        if self.reading_paused or self.exchange is not None:
            self.update_backpressure()

    def _postpone(self) -> None:
        """Call `_pump` at a later turn of the reactor; read no more until then."""
        self._pumping = True
        if not self.reading_paused and self.transport is not NO_TRANSPORT:
            # Without noticing a disconnect: the client may have sent all its requests.
            self.reading_paused = True
            self.transport.pauseProducing()
        self.server.hub.at_next_turn(self._continue)

    def _continue(self) -> None:
        """Resume a postponed `_pump`."""
        self._pumping = False
        if self.state is CLOSED:
            return
        if self.reading_paused:
            self._resume_reading()
        self._pump(in_turn=True)

    def _hand_body(self, exchange: Exchange, event: Event) -> None:
        if event is END:
            exchange.body.ended()
            if self.state is DRAINING:
                self._next_exchange(self.server.hub.seconds())
        elif type(event) is Refusal:
            exchange.body.fail(BadBody(event.status, event.reason))
        else:
            exchange.body.received(event)  # type: ignore[arg-type]

    def _begin(self, head: RequestHead, complete: bool = False) -> None:
        """Begin an exchange; `complete` means that the request has no body."""
        self.state = _ON_REQUEST[self.state]
        if self.ends is NO_ENDS:
            self._find_ends()
        self._h1.begin(head)
        if head.upgrade and offers_websocket(head):
            self._h1.hold()  # the next bytes may belong to another protocol
        self.exchange = exchange = Exchange(self, self.server, head, complete)
        if not complete:
            # Body bytes that arrived with the head are available before the
            # application starts.
            body = exchange.body
            while not body.complete:
                if self._inbox:
                    self._hand_body(exchange, self._inbox.popleft())
                elif self._h1.has_unread and not body.full:
                    self._put(self._h1.feed(b"", True))
                else:
                    break
        exchange.admit()

    def _find_ends(self) -> None:
        if self._fd < 0:
            self._handshakes.end(self)  # for a transport that does not report it
        self.ends = self._both_ends()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer an invalid request and ignore all input after it."""
        self._find_ends()
        head, body = self._record_refusal(refusal, self.ends)
        self.output.send_last(self._h1.send_answer(head, body))
        self._close_lingering()

    # The stream of the exchange in progress.

    @property
    def connected(self) -> bool:
        """False once the client is known to have disconnected."""
        return self.state is not CLOSED

    def early_hints(self, hints: EarlyHints) -> None:
        """Send a 103 response. May park."""
        output = self.output
        output.send(self._h1.send_early_hints(hints))
        if output.may_buffer:
            output.flush()

    def start(
        self, head: ResponseHead, length: int | None, block: bytes, end: bool
    ) -> None:
        """Send the head and the first block in one write. May park."""
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
        if not end and output.may_buffer:
            output.flush()

    def data(self, block: bytes) -> None:
        """Send a block. May park."""
        data = self._h1.send_data(block)
        output = self.output
        if type(data) is bytes:
            output.send(data)
        else:
            output.send_parts(*data)
        if output.may_buffer and self.state is not UPGRADED:
            # A block must not wait for the application's next one (PEP 3333).
            output.flush()

    def send_file(
        self, head: ResponseHead, length: int, fd: int, offset: int, count: int
    ) -> int | None:
        """Send the head, and a part of a file with sendfile(). May park."""
        start = self._h1.send_head(head, length, b"", False, self._may_persist())
        assert type(start) is bytes, "a head alone is one piece"
        sent = self.output.send_file(start, fd, offset, count)
        if sent is None:
            self.output.send(start)
        return sent

    def more_of_file(self, fd: int, offset: int, count: int) -> int:
        """Send more of a file with sendfile(). May park."""
        return self.output.send_file(b"", fd, offset, count) or 0

    def finish(self) -> None:
        """End the response. May park."""
        if self.output.waiting is not None:
            raise concurrent_write_error()
        if self._h1.sending is BODY:
            data = self._h1.send_end()
            if data:
                self.output.send(data)
        elif self.state is UPGRADED and self.exchange is not None:
            exchange = self.exchange
            self._close_behind(exchange)
            self.server.detach(exchange)

    def end_sending(self) -> None:
        """End the sending side of an upgraded connection, and continue to read."""
        self._close_sending(self.output, isinstance(self.output, SocketOutput))

    def upgrade(self, protocol: str, head: ResponseHead | None) -> None:
        """Switch to another protocol, and send a 101 response. May park."""
        exchange = self.exchange
        assert exchange is not None, "an exchange switches while it is served"
        self.state = _ON_UPGRADE[self.state]
        response = self._h1.switch(protocol, head)
        early = self._h1.take_unread()
        if early:
            exchange.body.received(early)
        self.update_backpressure()
        if response:
            self.output.send(response)

    def answer(self, head: ResponseHead, body: bytes, last: bool = True) -> None:
        """Send a complete response generated by the server. Close if it is the last."""
        exchange = self.exchange
        if exchange is None:
            return
        h1 = self._h1
        if last or not (exchange.body.complete and self._may_persist()):
            self.output.send_last(h1.send_answer(head, body))
        else:
            block = b"" if exchange.head.method == "HEAD" else body
            data = h1.send_head(head, len(body), block, True, True)
            assert type(data) is bytes, "a short response is one piece"
            if self.output.send_last(data):
                return
        self._close_behind(exchange)
        if exchange.state is not ENDED:
            self.server.detach(exchange)

    def break_off(self) -> None:
        """Truncate the response (RFC 9112 section 8).

        The client detects the missing bytes when `ended` closes the connection; a
        response that is delimited by the close is aborted instead.
        """
        self._h1.persistent = False
        if self._h1.framing is CLOSE:
            self.abort()

    def reset(self) -> None:
        """Abort the connection."""
        self.abort()

    def ended(self, exchange: Carried) -> None:
        """Continue with the next request, or close."""
        served = self.exchange
        if served is not exchange or served is None:
            return  # the connection is lost, or closes after an answer
        h1 = self._h1
        if self.state is UPGRADED:
            self._close_behind(served)
        elif self.state is not SERVING:
            self.exchange = None
        elif h1.sending is not COMPLETE or not h1.persistent:
            self._close_behind(served)
        elif served.body.complete:
            self._next_exchange(self.server.hub.ended_at)
        else:
            # `_hand_body` continues at the end of the body.
            self.state = _ON_DRAIN[self.state]
            self._time = self.server.hub.seconds()
            if self.reading_paused:
                self.update_backpressure()

    def _next_exchange(self, now: float) -> None:
        """Begin the next request, or wait for it; `now` is the reactor's clock."""
        self.exchange = None
        self.state = _ON_NEXT[self.state]
        self._time = now
        if self._fd < 0 and isinstance(self.output, DirectOutput):
            self.output.release_memory()
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
        """Whether input was received after the request in progress."""
        return bool(self._inbox) or self._h1.has_unread

    def _may_persist(self) -> bool:
        """Return whether the connection may persist after the current response."""
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
            # A received request is answered; later ones go to other servers.
            return False
        return body.complete or body.max_missing_bytes <= DRAIN_BYTES

    # The request body.

    def send_continue(self) -> None:
        """Send a 100 response. May park."""
        self.output.send(self._h1.send_continue())

    def stop_receiving(self) -> None:
        """Discard further input, and close after the response."""
        self._h1.stop_receiving()

    def update_backpressure(self) -> None:
        """Pause reading while no exchange can use more input; else resume it."""
        exchange = self.exchange
        if self.state is LINGERING or self.state is CLOSED:
            wanted = True
        elif exchange is None:
            wanted = not self._pumping  # else the next request was received
        elif exchange.body.full:
            wanted = False
        elif exchange.body.complete:
            wanted = not self._request_waits
        else:
            wanted = not self._h1.has_unread
            if not (wanted or self._pumping or exchange.body.held >= _DECODED_BYTES):
                self._postpone()  # a part of the body awaits its decoding
                return
        if wanted and self.reading_paused:
            if self.state is UPGRADED and self._upgraded_input_ended():
                return
            self._resume_reading()
        elif (
            not wanted
            and not self.reading_paused
            and self.transport is not NO_TRANSPORT
        ):
            self._pause_reading()

    def stored_body(self) -> None:
        """Return None: bodies arrive in pieces."""

    def read_body(self, wanted: int) -> bytes | None:
        """Read a piece of the body for the calling task. Never parks.

        Saves a reactor turn. Call when the task has taken all earlier pieces.

        Returns:
            b"" if no data is available; None if pieces were added to the body.
        """
        if self.reading_paused or self._inbox or self._h1.has_unread:
            return b""
        if self.state is not SERVING:
            return b""
        hub = self.server.hub
        if hub.seconds() - hub.resumed_at > hub.slice_seconds:
            hub.yielded_at = hub.resumed_at
            return b""  # a fast client must not monopolize the reactor
        size = min(max(wanted, _MIN_READ_BYTES), MAX_PIECE_BYTES)
        if self._fd < 0:
            output = self.output
            data = output.receive(size) if isinstance(output, DirectOutput) else b""
        else:
            try:
                data = self.transport.socket.recv(size)
            except OSError:
                return b""  # no data, or an error that the reactor will report
        if not data:
            return b""  # end of stream, which the reactor will report
        if self._h1.is_piece(data):
            return data
        self._put(self._h1.feed(data, True))
        if self._pumping:
            return b""  # `_pump` dispatches it when the task parks
        self._pump()
        return None

    # Closing.

    def stop(self) -> None:
        """Begin shutdown: close when the client has been idle for `drain_idle`."""
        if self.state is IDLE:
            self._time = max(self._time, self.server.shutdown.began)
            self._drain(self.server.hub.seconds())

    def _drain(self, now: float) -> None:
        """Close an idle connection, unless a request may be on its way.

        The client expects the connection to persist, and may send at any time.
        """
        if (
            not self._pumping
            and now - self._time >= self.server.settings.drain_idle
            and not self._has_input()  # perhaps a request; `check` tries again
        ):
            self._close_lingering(DRAIN_CLOSE_SECONDS)

    def end_of_grace(self) -> None:
        """Close after the grace period if no request is in progress."""
        if self.exchange is None:
            self._close()

    def _has_input(self) -> bool:
        """Return whether uninterpreted input is known to exist."""
        return bool(self._inbox) or not self._h1.idle or self.output.has_unread_input()

    def _close(self) -> None:
        """Close gracefully: all bytes sent are delivered."""
        if self.state is LINGERING or self.state is CLOSED:
            return
        self._begin_closing()
        transport = self.transport
        self.output.detach()
        if self._fd >= 0 and not self.output.may_buffer:
            # Twisted's loseConnection would cost an empty send and a turn.
            transport.stopReading()
            self.server.hub.at_next_turn(partial(transport.connectionLost, DONE))
            return
        transport.loseConnection()
        below = getattr(transport, "transport", None)
        if isinstance(below, TCPConnection):
            # TLS would wait for the client's close_notify, which is optional
            # (RFC 8446 section 6.1). All bytes are in the buffer of the lower layer.
            below.loseConnection()

    def _close_behind(self, exchange: Exchange) -> None:
        """Close after the last exchange."""
        # A client that requested the close sends no more (RFC 9112 section 9.6).
        if exchange.body.complete and (
            not (exchange.head.keep_alive or self._request_waits)
            or not self._has_input()
        ):
            if exchange.head.keep_alive and self.server.shutdown.stopping:
                # Its next request may be on its way.
                self._close_lingering(DRAIN_CLOSE_SECONDS)
            else:
                self._close()
        else:
            self._close_lingering()
        self.exchange = None

    def _close_lingering(self, seconds: float | None = None) -> None:
        """Close the sending side; read and discard input for a limited time.

        A close with unread bytes in the kernel resets the connection, and the
        client may lose the response (RFC 9112 section 9.6).

        Args:
            seconds: the limit; None for the default.
        """
        if self.state is LINGERING or self.state is CLOSED:
            return
        self._begin_closing(seconds)
        self._close_sending(self.output, isinstance(self.output, SocketOutput))

    def _begin_closing(self, seconds: float | None = None) -> None:
        self.state = _ON_CLOSE[self.state]
        if seconds is None:
            # The transport may still buffer a part of the response.
            seconds = self._flush_seconds
        self._time = self.server.hub.seconds() + seconds
        self._unaccepted = UNKNOWN
        self._drop_input()
        if self.reading_paused:
            self._resume_reading()

    @property
    def _flush_seconds(self) -> float:
        """The time for a transport to send what it buffers."""
        if isinstance(self.output, SocketOutput):
            return CLOSE_SECONDS
        return self.server.limits.write_seconds or float("inf")

    def abort(self) -> None:
        """Abort the connection, so that the client detects the truncation."""
        self.state = _ON_LOSE[self.state]
        self._drop_input()
        self._abort_transport(self.output)

    def check(self, now: float) -> None:
        """Apply the deadlines of the connection and its exchange."""
        state = self.state
        settings = self.server.settings
        if state is SERVING or state is UPGRADED:
            exchange = self.exchange
            if exchange is not None:
                writer = self.waiting
                if writer is None:
                    self._unaccepted = UNKNOWN
                elif self._client_accepts():
                    writer.progressed(now)
                exchange.check(now)
        elif state is IDLE:
            if self._pumping:
                return  # the next request was received and is about to begin
            limit = settings.keep_alive or settings.header_timeout
            if self._fd < 0 and self in self._handshakes:
                limit = settings.header_timeout or limit
            if limit and now - self._time >= limit:
                self._time_out(limit)
            elif self.server.shutdown.stopping:
                self._drain(now)
        elif state is HEAD:
            limit = settings.header_timeout
            if limit and now - self._time >= limit:
                self._time_out(limit)
        elif state is DRAINING:
            if now - self._time >= CLOSE_SECONDS:
                self._close_lingering()
        else:
            self._check_closing(now, self._flush_seconds)

    def _time_out(self, limit: float) -> None:
        """Close an idle connection, or refuse a request whose head is late.

        Input that has arrived and was not read yet is in time.
        """
        before = self.state, self._time
        if self.read_now() and (self.state, self._time) != before:
            return  # a request has begun, or is complete
        if self.state is IDLE:
            self._close()
        else:
            self._refuse(Refusal(408, f"no complete head in {limit:g} seconds"))

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""
        later = self._time + seconds
        if self.state is LINGERING or self.state is CLOSED:
            self._time = max(self._time, min(later, now + CLOSE_SECONDS))
        else:
            self._time = min(later, now)
        if self.exchange is not None:
            self.exchange.postpone(seconds, now)
