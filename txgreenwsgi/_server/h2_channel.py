"""One HTTP/2 connection: its transport, and the streams of its exchanges.

Frames are dispatched one by one in the reactor greenlet, for one time slice at most.
While the client does not accept what was sent, few frames are read: answers to them
cannot pile up. Streams with more to send than the windows allow take turns
(`_http2/priority.py`).

This file owns a transport. It must never know the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from twisted.internet.interfaces import IProtocol, ITCPTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._http2.connection import Connection
from txgreenwsgi._http2.events import (
    BodyEnded,
    DataReceived,
    Failed,
    GoneAway,
    Prioritized,
    RequestReceived,
    RequestRefused,
    StreamReset,
    WindowOpened,
)
from txgreenwsgi._http2.priority import Turns
from txgreenwsgi._serving.exchange import ENDED, Exchange
from txgreenwsgi._states import TransitionTable

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
from .h2_output import SocketWriter, writer_for
from .h2_stream import CANCEL, INTERNAL_ERROR, NO_ERROR, H2Stream
from .output import UNKNOWN, has_unread_bytes

if TYPE_CHECKING:
    from twisted.internet.interfaces import ITransport
    from twisted.python.failure import Failure

    from txgreenwsgi._http2.connection import Http2Limits
    from txgreenwsgi._http2.events import Event
    from txgreenwsgi._serving.application_server import ApplicationServer

    from .h2_output import Writer
    from .proxied_address import ProxiedAddress
    from .sockets import Sockets

__all__ = [
    "ANNOUNCED",
    "CLOSED",
    "CONNECTION",
    "EXCESS_BYTES",
    "FINISHING",
    "LINGERING",
    "OPEN",
    "H2Channel",
]

_log = Logger()

#: Requests are accepted.
OPEN: Final = "open"
#: The client knows that the connection will end; requests on their way are accepted.
ANNOUNCED: Final = "announced"
#: Later requests are refused; those in progress are served.
FINISHING: Final = "finishing"

#: Time between the last response and the announcement of the end. A client that reads
#: both at once may lose a response that it has not handled yet.
_SETTLE_SECONDS: Final = 0.25

CONNECTION: Final = TransitionTable(
    "an HTTP/2 connection",
    {
        OPEN: {
            "announce": ANNOUNCED,
            "finish": FINISHING,
            "close": LINGERING,
            "lose": CLOSED,
        },
        ANNOUNCED: {"finish": FINISHING, "close": LINGERING, "lose": CLOSED},
        FINISHING: {"close": LINGERING, "lose": CLOSED},
        LINGERING: {"lose": CLOSED},
        CLOSED: {"lose": CLOSED},
    },
)

_ON_ANNOUNCE: Final = CONNECTION.moves("announce")
_ON_FINISH: Final = CONNECTION.moves("finish")
_ON_CLOSE: Final = CONNECTION.moves("close")
_ON_LOSE: Final = CONNECTION.moves("lose")

#: Size of the pieces in which the frames of a connection go to the transport.
_PIECE_BYTES = 65536

#: Bytes that are written for a client that accepts none, above which its frames are not
#: read: answers to them must not pile up.
EXCESS_BYTES: Final = 16384

_NEVER = float("inf")

_REFUSED_STREAM = 7  # RFC 9113 section 7

_NO_WRITER = cast("Writer", None)


@implementer(IProtocol)
class H2Channel(Channel):
    """The Twisted protocol of one HTTP/2 connection.

    Args:
        server: the application's server.
        sockets: the poller of the site's plain connections.
        limits: the limits of the connection.
        proxied: the client's address, if a proxy has named it by the PROXY protocol.

    Attributes:
        state: one of the states of `CONNECTION`.
        server: as given.
        h2: the connection without I/O.
        transport: the transport; None before the connection is made and after it is
            lost.
        may_buffer: whether the transport sends in a later turn of the reactor.
        reading_paused: whether reading from the transport is paused.
    """

    __slots__ = (
        "_announced",
        "_discarded",
        "_ends",
        "_excess",
        "_fd",
        "_head_since",
        "_idle_since",
        "_limit",
        "_orphans",
        "_peer_gone",
        "_postponed",
        "_progress",
        "_proxied",
        "_pumping",
        "_scheduled",
        "_sending",
        "_sockets",
        "_streams",
        "_time",
        "_turns",
        "_unaccepted",
        "_unadmitted",
        "_writer",
        "h2",
        "may_buffer",
        "reading_paused",
        "server",
        "state",
        "transport",
    )

    def __init__(
        self,
        server: ApplicationServer,
        sockets: Sockets,
        limits: Http2Limits,
        proxied: ProxiedAddress | None = None,
    ) -> None:
        self.state = OPEN
        self.server = server
        self.h2 = Connection(limits)
        self.transport = NO_TRANSPORT
        self.may_buffer = False
        self.reading_paused = False
        self._sockets = sockets
        self._proxied = proxied
        self._ends = NO_ENDS
        self._writer = _NO_WRITER
        self._fd = -1
        # Open streams, and the exchanges that outlive their stream: their tasks take
        # slots, however fast the client resets its streams.
        self._streams: dict[int, H2Stream] = {}
        self._orphans = 0
        self._limit = limits.streams * 2
        # The stream whose exchange begins when its first bytes were received.
        self._unadmitted: H2Stream | None = None
        self._turns: Turns[H2Stream] = Turns()
        self._pumping = False
        self._postponed = False
        self._sending = False
        self._scheduled = False
        # Time of the last progress of the connection: a stream has sent data in its
        # turn, or the client has accepted bytes.
        self._progress = 0.0
        self._peer_gone = False
        # Bytes written while the client accepted none.
        self._excess = 0
        self._discarded = 0
        self._unaccepted = UNKNOWN
        # Time of the announcement of the end.
        self._announced = 0.0
        # Time from which the connection has no stream, and at which to abort it, in
        # LINGERING and CLOSED.
        self._idle_since = self._time = 0.0
        # Time of the first byte of an incomplete head; _NEVER without one.
        self._head_since = _NEVER

    # Called by the transport.

    def makeConnection(self, transport: ITransport) -> None:
        """Attach the transport of a new connection, and send the settings."""
        self.transport = transport  # type: ignore[assignment]
        seconds = self.server.hub.seconds
        self._idle_since = self._head_since = seconds()
        if self._sockets.adopt(self, transport):
            self._fd = self.transport.fileno()
        elif ITCPTransport.providedBy(transport):
            # Frames leave in one send, so there is nothing to coalesce.
            transport.setTcpNoDelay(True)
        self._writer = writer_for(self.transport, self, seconds)
        self.may_buffer = self._writer.may_buffer
        self._ends = self._both_ends()
        self.server.connection_made(self)
        self._write_out()

    def dataReceived(self, data: bytes) -> None:
        """Interpret bytes from the client."""
        if self.state is LINGERING or self.state is CLOSED:
            self._discard(data)
            return
        self.h2.feed(data)
        if not self._pumping and not self._postponed:
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
            return CONNECTION_DONE
        self.dataReceived(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Handle the loss of the connection, for any reason."""
        self.state = _ON_LOSE[self.state]
        self._writer.disconnected()
        if self._fd >= 0:
            self._sockets.forget(self, self._fd)
        self.server.connection_lost(self)
        self._lose_streams()
        self.transport = NO_TRANSPORT

    def send_failed(self) -> None:
        """Abort the connection after a failed send."""
        self.state = _ON_LOSE[self.state]
        self._lose_streams()
        self.abort()

    def _lose_streams(self) -> None:
        """Notify all exchanges of the loss of the client."""
        for stream in list(self._streams.values()):
            self._lose_stream(stream)

    def _lose_stream(self, stream: H2Stream) -> None:
        """Notify the exchange of a stream that the client has closed."""
        exchange = stream.exchange
        self._forget(stream)
        if exchange is not None:
            exchange.peer_lost()

    # Receiving.

    def _pump(self) -> None:
        """Dispatch the received frames, for one time slice at most."""
        self._pumping = True
        hub = self.server.hub
        now = hub.seconds()
        end = now + hub.slice_seconds
        h2 = self.h2
        try:
            while self._excess <= EXCESS_BYTES:
                events = h2.next_events(now)
                if events is None:
                    break
                for event in events:
                    self._dispatch(event)
                now = hub.seconds()
                if now > end:
                    self._postponed = h2.buffered > 0
                    break
            self._admit()
        finally:
            self._pumping = False
        if self._turns:
            self.send_pending()
        else:
            self._write_out()
        if not h2.awaits_head:
            self._head_since = _NEVER
        elif self._head_since == _NEVER:
            self._head_since = now
        if self._postponed:
            self.server.hub.at_next_turn(self._continue)
        elif not self._streams:
            self._idle()
        self._update_reading()

    def _continue(self) -> None:
        """Resume a postponed `_pump`."""
        self._postponed = False
        if self.state is LINGERING or self.state is CLOSED:
            self._update_reading()
        else:
            self._pump()

    def _dispatch(self, event: Event) -> None:
        kind = type(event)
        if kind is RequestReceived:
            self._begin(event)  # type: ignore[arg-type]
        elif isinstance(event, DataReceived):
            stream = self._streams.get(event.stream_id)
            if stream is None:
                self.h2.drop(event.size)
            else:
                stream.received(event.data, event.size)
        elif isinstance(event, BodyEnded):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.body_ended(event.refusal)
                if stream.draining >= 0:
                    self._forget(stream)
                    self._stream_ended()
        elif isinstance(event, WindowOpened):
            stream = self._streams.get(event.stream_id)
            if stream is not None and stream.pending is not None:
                self._turns.add(stream, stream.urgency)
        elif isinstance(event, StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                self._lose_stream(stream)
                self._stream_ended()
        elif isinstance(event, Prioritized):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.urgency = event.urgency
                self._turns.move(stream, event.urgency)
        elif isinstance(event, RequestRefused):
            self._refuse(event)
        elif isinstance(event, GoneAway):
            self._peer_gone = True
            self._stream_ended()
        elif isinstance(event, Failed):
            self._fail(event)

    def _begin(self, event: RequestReceived) -> None:
        """Begin an exchange."""
        self._admit()
        stream_id = event.stream_id
        if len(self._streams) + self._orphans >= self._limit:
            # Many tasks of earlier streams, which the client has reset, still run.
            self.h2.reset(stream_id, _REFUSED_STREAM)
            return
        shutdown = self.server.shutdown
        if shutdown.stopping and self.state is OPEN and self._streams:
            # Some clients lose their open streams when the end is announced: it is only
            # for those whose connection does not become idle.
            now = self.server.hub.seconds()
            patience = max(self.server.settings.drain_idle, DRAIN_CLOSE_SECONDS)
            if now - shutdown.began >= patience:
                self._announce(now)
        head = event.head
        if event.protocol:
            head.upgrade = event.protocol
        stream = H2Stream(
            self,
            stream_id,
            event.urgency,
            self._ends,
            head.method == "HEAD",
            not event.ended,
        )
        self._streams[stream_id] = stream
        stream.exchange = exchange = Exchange(stream, self.server, head, event.ended)
        if event.ended:
            exchange.admit()
        else:
            # Body bytes that arrived with the head are available before the
            # application starts.
            self._unadmitted = stream

    def _admit(self) -> None:
        """Start the exchange whose first bytes were awaited."""
        stream, self._unadmitted = self._unadmitted, None
        if stream is not None and stream.connected and stream.exchange is not None:
            stream.exchange.admit()

    def _refuse(self, event: RequestRefused) -> None:
        """Answer an invalid request without an exchange."""
        ends = self._ends
        head, body = self._record_refusal(event.refusal, ends)
        stream = H2Stream(
            self, event.stream_id, 0, ends, event.method == "HEAD", not event.ended
        )
        self._streams[event.stream_id] = stream
        stream.answer(head, body)
        if stream.pending is None:
            self._close_stream(stream)

    def _fail(self, event: Failed) -> None:
        """Close the connection because of an error of the client."""
        _log.info(
            "HTTP/2 connection closed: {address}: {reason}",
            address=self._ends.remote_addr or "a UNIX socket",
            reason=event.reason,
        )
        self._lose_streams()
        self._write_out()
        self._close_lingering()

    # Sending. Called by the streams.

    @property
    def blocked(self) -> bool:
        """Whether sent bytes wait for the client."""
        return self._writer.blocked

    @property
    def may_send(self) -> bool:
        """Whether a stream may send out of turn, because no other one waits."""
        return not self._turns and not self._writer.blocked

    def send_now(self, stream_id: int, data: memoryview, end: bool) -> int:
        """Send as much of `data` as the client accepts; return the number of bytes."""
        h2 = self.h2
        size = len(data)
        total = unwritten = 0
        while total < size and not self._writer.blocked:
            sent = h2.send_data(stream_id, data[total:] if total else data, end)
            if not sent:
                break
            total += sent
            unwritten += sent
            if unwritten >= _PIECE_BYTES:
                self._write_out()
                unwritten = 0
        self.flush(not end)
        return total

    def enqueue(self, stream: H2Stream) -> None:
        """Send the `pending` of a stream in its turn."""
        stream.since = self.server.hub.seconds()
        self._turns.add(stream, stream.urgency)
        if not self._scheduled and not self._writer.blocked:
            # A window, or the end of `_pump`, continues; a turn costs nothing then.
            self._scheduled = True
            self.server.hub.at_next_turn(self._send_scheduled)

    def dequeue(self, stream: H2Stream) -> None:
        """Drop the `pending` of a stream."""
        stream.pending = None
        self._turns.remove(stream)

    def _send_scheduled(self) -> None:
        self._scheduled = False
        self.send_pending()

    def writable(self) -> None:
        """Continue to send, and to read. Called by the writer."""
        self._excess = 0
        self.send_pending()
        if (
            self.h2.buffered
            and not (self._pumping or self._postponed)
            and self.state is not LINGERING
            and self.state is not CLOSED
        ):
            self._pump()
        else:
            self._update_reading()

    def send_pending(self) -> None:
        """Send the `pending` of all streams in turns, as far as the client accepts."""
        if self._sending or self.state is CLOSED:
            return
        self._sending = True
        h2 = self.h2
        turns = self._turns
        hub = self.server.hub
        now = hub.seconds()
        end = now + hub.slice_seconds
        unwritten = 0
        try:
            while turns and not self._writer.blocked:
                stream = turns.next()
                pending = stream.pending
                if not pending:
                    turns.remove(stream)
                    if pending is not None:
                        stream.sent(0, now)
                    continue
                sent = h2.send_data(stream.stream_id, pending, stream.pending_ends)
                if not sent:
                    if h2.window <= 0:
                        break
                    turns.remove(stream)  # until its window opens
                    continue
                if sent == len(pending):
                    turns.remove(stream)
                stream.sent(sent, now)
                self._progress = now
                if stream.pending is None and stream.exchange is None:
                    self._close_stream(stream)
                unwritten += sent
                if unwritten >= _PIECE_BYTES:
                    self._write_out()
                    unwritten = 0
                    now = hub.seconds()
                    if now > end:
                        if not self._scheduled:
                            self._scheduled = True
                            hub.at_next_turn(self._send_scheduled)
                        break
        finally:
            self._sending = False
        self._write_out()

    def flush(self, at_once: bool) -> None:
        """Pass the frames to the transport.

        Args:
            at_once: False to leave them until the received frames are dispatched, so
                that many responses leave in one send.
        """
        if at_once or not self._pumping:
            self._write_out()

    def _write_out(self) -> None:
        data = self.h2.take()
        if data and self.state is not CLOSED and self.state is not LINGERING:
            writer = self._writer
            if writer.blocked:
                self._excess += len(data)
            writer.write(data)
            if self._excess and not writer.blocked:
                self.server.hub.at_next_turn(self.writable)

    def reset_stream(self, stream: H2Stream, code: int) -> None:
        """Reset a stream at once."""
        if self._streams.get(stream.stream_id) is not stream:
            return
        self.h2.reset(stream.stream_id, code)
        self._forget(stream)
        self.flush(False)
        self._stream_ended()

    def exchange_ended(self, stream: H2Stream) -> None:
        """Handle the end of the exchange of a stream."""
        if stream.orphaned:
            stream.orphaned = False
            self._orphans -= 1
        elif stream.pending is None:
            self._close_stream(stream)

    def _close_stream(self, stream: H2Stream) -> None:
        """Close the stream of an exchange that has ended."""
        stream_id = stream.stream_id
        h2 = self.h2
        if h2.is_open(stream_id):
            h2.reset(stream_id, INTERNAL_ERROR)  # the response is incomplete
        elif stream.receiving and self.state is not CLOSED:
            exchange = stream.exchange
            missing = DRAIN_BYTES
            if exchange is not None and exchange.head.content_length is not None:
                missing = int(exchange.body.max_missing_bytes)
            if missing <= DRAIN_BYTES:
                # Its client may not look at the response before it has sent the rest.
                stream.draining = DRAIN_BYTES
                stream.since = self.server.hub.seconds()
                h2.credit(stream_id, stream.take_unread())
                self.flush(False)
                return
            h2.reset(stream_id, NO_ERROR)
        self._forget(stream)
        self.flush(False)
        self._stream_ended()

    def _forget(self, stream: H2Stream) -> None:
        """Remove a stream. Its exchange may go on."""
        if self._streams.pop(stream.stream_id, None) is None:
            return
        stream.connected = False
        if stream.pending is not None:
            self._turns.remove(stream)
            if stream.waiting is None:
                stream.pending = None
        stream.stop_receiving()
        exchange = stream.exchange
        if exchange is not None and exchange.state is not ENDED:
            stream.orphaned = True
            self._orphans += 1
            self.server.detach(exchange)

    def _stream_ended(self) -> None:
        """Handle the end of a stream: the connection may be idle now."""
        if not self._streams:
            self._idle_since = self.server.hub.seconds()
            if not self._pumping:
                self._idle()

    def _idle(self) -> None:
        """Close a connection without streams if no request is expected."""
        if self._peer_gone or self.state is FINISHING:
            self._end()
        elif self.server.shutdown.stopping:
            self._drain(self._idle_since)
        elif not self.server.settings.keep_alive and self.h2.highest:
            self._end()

    # Reading.

    def _update_reading(self) -> None:
        """Pause reading while received frames wait; else resume it."""
        lingers = self.state is LINGERING or self.state is CLOSED
        wanted = lingers or not (self._excess > EXCESS_BYTES or self._postponed)
        if self.transport is NO_TRANSPORT or wanted is not self.reading_paused:
            return
        if wanted:
            self._resume_reading()
        else:
            self._pause_reading()

    def read_now(self) -> bool:
        """Deliver input that the reactor has not read; return False if there is none.

        A no-op while frames are dispatched.
        """
        return not self._pumping and super().read_now()

    # Closing.

    def stop(self) -> None:
        """Begin shutdown: announce the end, and close when the client is idle."""
        self._drain(self.server.hub.seconds())

    def _drain(self, now: float) -> None:
        """Take the next step of the shutdown: see `docs/decisions/0038-http2.md`."""
        if self.state is FINISHING:
            return
        began = self.server.shutdown.began
        idle = self.server.settings.drain_idle
        if not self._streams:
            if self.state is OPEN and now - self._idle_since >= min(
                idle, _SETTLE_SECONDS
            ):
                self._announce(now)
            if now - max(began, self._idle_since) >= idle and not self._has_input():
                self._end()
        elif (
            self.state is ANNOUNCED
            and now - self._announced >= max(idle, DRAIN_CLOSE_SECONDS)
            and not self._has_input()
        ):
            self.state = _ON_FINISH[self.state]
            self.h2.end()
            self._write_out()

    def _announce(self, now: float) -> None:
        """Tell the client to open no more streams; those on their way are served."""
        self.state = _ON_ANNOUNCE[self.state]
        self._announced = now
        self.h2.announce_end()
        self._write_out()

    def _has_input(self) -> bool:
        """Return whether input is known that may be a request."""
        return self._postponed or has_unread_bytes(self.transport)

    def end_of_grace(self) -> None:
        """Close after the grace period if no request is in progress."""
        if not self._streams:
            self._end()

    def _end(self) -> None:
        """Send the final GOAWAY, and close behind the last byte."""
        if self.state is LINGERING or self.state is CLOSED:
            return
        if self.state is not FINISHING:
            self.h2.end()
        self._write_out()
        if self.state is not CLOSED:
            self._close_lingering(DRAIN_CLOSE_SECONDS)

    def _close_lingering(self, seconds: float = CLOSE_SECONDS) -> None:
        """Close the sending side; read and discard input for a limited time.

        A close with unread bytes in the kernel resets the connection, and the client
        may lose the last responses (RFC 9112 section 9.6).
        """
        if self.state is LINGERING or self.state is CLOSED:
            return
        self.state = _ON_CLOSE[self.state]
        self._time = self.server.hub.seconds() + max(seconds, self._flush_seconds)
        self._unaccepted = UNKNOWN
        self._close_sending(self._writer, isinstance(self._writer, SocketWriter))
        self._update_reading()

    @property
    def _flush_seconds(self) -> float:
        """The time for a transport to send what it buffers."""
        if isinstance(self._writer, SocketWriter) and not self._writer.blocked:
            return 0.0
        return self.server.limits.write_seconds or float("inf")

    def abort(self) -> None:
        """Abort the connection."""
        self.state = _ON_LOSE[self.state]
        self._abort_transport(self._writer)

    # Deadlines.

    def check(self, now: float) -> None:
        """Apply the deadlines of the connection and its exchanges."""
        if self.state is LINGERING or self.state is CLOSED:
            # What the writer has not sent is in the transport since `detach`.
            limit = self.server.limits.write_seconds or float("inf")
            self._check_closing(now, limit)
            return
        self._note_progress(now)
        for stream in list(self._streams.values()):
            if stream.exchange is not None:
                stream.exchange.check(now)
            else:
                self._check_rest(stream, now)
        if self.state is CLOSED or self.state is LINGERING:
            return
        settings = self.server.settings
        limit = self.server.limits.write_seconds
        if self._writer.blocked:
            if limit and now - self._writer.since >= limit:
                _log.info(
                    "write timeout: {address} accepted no byte for {limit:g} seconds, "
                    "closing the connection",
                    address=self._ends.remote_addr or "a UNIX socket",
                    limit=limit,
                )
                self.abort()
            return
        if self._head_since != _NEVER and not self._postponed:
            limit = settings.header_timeout
            if limit and now - self._head_since >= limit:
                self._time_out(f"no complete head in {limit:g} seconds")
                return
        if not self._streams:
            limit = settings.keep_alive or settings.header_timeout
            if (
                limit
                and now - self._idle_since >= limit
                and not self.h2.buffered
                and not has_unread_bytes(self.transport)
            ):
                self._end()
                return
        if self.server.shutdown.stopping:
            self._drain(now)

    def _note_progress(self, now: float) -> None:
        """Extend the time limits of sending by the progress of the connection.

        A stream whose own window is open waits for the connection: for its kernel, its
        window, and more urgent streams. So does one that has only a head to send.
        """
        writer = self._writer
        if not writer.blocked:
            self._unaccepted = UNKNOWN
        else:
            if self._client_accepts():
                writer.since = now
            self._progress = max(self._progress, writer.since)
        h2 = self.h2
        for stream in self._turns:
            if not stream.pending or h2.window_of(stream.stream_id) > 0:
                stream.progressed(self._progress)

    def _check_rest(self, stream: H2Stream, now: float) -> None:
        """Apply the deadline of a stream whose exchange has ended."""
        limit = CLOSE_SECONDS
        if stream.pending is not None:
            limit = self.server.limits.write_seconds or float("inf")
        if now - stream.since >= limit:
            code = NO_ERROR if stream.pending is None else CANCEL
            self.reset_stream(stream, code)

    def _time_out(self, reason: str) -> None:
        """Close a connection whose client does not complete a head.

        Input that has arrived and was not read yet is in time.
        """
        before = self._head_since
        if self.read_now() and self._head_since != before:
            return
        self.h2.give_up(reason)
        self._lose_streams()
        self._write_out()
        self._close_lingering()

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""
        if self.state is LINGERING or self.state is CLOSED:
            later = min(self._time + seconds, now + CLOSE_SECONDS)
            self._time = max(self._time, later)
            return
        self._idle_since = min(self._idle_since + seconds, now)
        if self._head_since != _NEVER:
            self._head_since = min(self._head_since + seconds, now)
        self._writer.since = min(self._writer.since + seconds, now)
        for stream in self._streams.values():
            stream.since = min(stream.since + seconds, now)
            if stream.exchange is not None:
                stream.exchange.postpone(seconds, now)
