"""One stream of an HTTP/2 connection: the port of one exchange.

A block that does not fit into the windows of the client stays here, and its task is
parked until the connection has sent it in its turn. A part of a request body that the
application has not read is not returned to the window of the client.

This file parks tasks. It must never know a transport.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from txgreenwsgi._http.framing import BODILESS_CODES
from txgreenwsgi._serving.body import BadBody, RequestBody
from txgreenwsgi._serving.stream import concurrent_write_error, park_for_turn
from txgreenwsgi._switching.errors import ClientDisconnected
from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.waiting import sleep

if TYPE_CHECKING:
    from txgreenwsgi._http.head import Refusal
    from txgreenwsgi._http.writer import EarlyHints, ResponseHead
    from txgreenwsgi._http2.connection import Connection
    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._serving.exchange import Exchange
    from txgreenwsgi._serving.stream import Carried, Ends

__all__ = ["CANCEL", "INTERNAL_ERROR", "NO_ERROR", "H2Stream"]

# RFC 9113 section 7.
NO_ERROR: Final = 0
INTERNAL_ERROR: Final = 2
CANCEL: Final = 8

#: Size below which pieces of a body are joined while no task reads: each piece takes
#: more memory than its content.
_SMALL_BYTES: Final = 1024


class Carrier(Protocol):
    """The connection of a stream.

    Attributes:
        server: the application's server.
        h2: the connection without I/O.
        may_buffer: whether the transport sends in a later turn of the reactor.
        may_send: whether a stream may send out of turn, because no other one waits.
        blocked: whether sent bytes wait for the client.
    """

    server: ApplicationServer
    h2: Connection
    may_buffer: bool

    @property
    def may_send(self) -> bool: ...

    @property
    def blocked(self) -> bool: ...

    def send_now(self, stream_id: int, data: memoryview, end: bool) -> int:
        """Send as much as possible; return the number of bytes."""

    def enqueue(self, stream: H2Stream) -> None:
        """Send the stream's `pending` in its turn."""

    def dequeue(self, stream: H2Stream) -> None:
        """Drop the stream's `pending`."""

    def send_pending(self) -> None:
        """Send what is possible now."""

    def flush(self, at_once: bool) -> None:
        """Pass the bytes to the transport, or soon if the connection is read now."""

    def read_now(self) -> bool:
        """Deliver input that has arrived and was not read; False if there is none."""

    def reset_stream(self, stream: H2Stream, code: int) -> None:
        """Reset a stream at once."""

    def exchange_ended(self, stream: H2Stream) -> None:
        """Handle the end of the stream's exchange."""


class H2Stream:
    """The stream of one exchange, and its own `output`.

    Args:
        carrier: the connection.
        stream_id: the number of the stream.
        urgency: the urgency of the request.
        ends: both ends of the connection.
        bodiless: whether the method excludes a response body.
        receiving: whether the request has a body.

    Attributes:
        stream_id: as given.
        urgency: as given, or the one that the client has sent since.
        exchange: the exchange; None for a response of the server, and at the end.
        waiting: the suspension of the task that is parked by backpressure.
        flushing: whether a task is parked for a flush.
        pending: the unsent part of a block; empty for a task that waits for its turn to
            send; None if nothing waits.
        pending_ends: whether the response ends with it.
        since: time of the last progress of `pending`.
        connected: False once the stream is known to be closed.
        reading_paused: whether bytes of the body are not returned to the window.
        receiving: whether the request body has not ended.
        draining: the number of bytes that may still be dropped after the response; -1
            while the request is served.
        orphaned: whether the exchange goes on although the stream is closed.
    """

    body_is_stored = False

    __slots__ = (
        "_bodiless",
        "_carrier",
        "_dropping",
        "_small",
        "_unread",
        "connected",
        "draining",
        "ends",
        "exchange",
        "flushing",
        "orphaned",
        "pending",
        "pending_ends",
        "reading_paused",
        "receiving",
        "since",
        "stream_id",
        "urgency",
        "waiting",
    )

    def __init__(
        self,
        carrier: Carrier,
        stream_id: int,
        urgency: int,
        ends: Ends,
        bodiless: bool,
        receiving: bool,
    ) -> None:
        self._carrier = carrier
        self.stream_id = stream_id
        self.urgency = urgency
        self.ends = ends
        self._bodiless = bodiless
        self.exchange: Exchange | None = None
        self.waiting: Suspension | None = None
        self.flushing = False
        self.pending: memoryview | None = None
        self.pending_ends = False
        self.since = 0.0
        self.connected = True
        self.reading_paused = False
        self.receiving = receiving
        self.draining = -1
        self.orphaned = False
        # Bytes of the body that are not returned to the window of the client.
        self._unread = 0
        # Small pieces, behind those of the body.
        self._small = b""
        self._dropping = False

    @property
    def output(self) -> H2Stream:
        """The stream itself."""
        return self

    # The response.

    def early_hints(self, hints: EarlyHints) -> None:
        """Send a 103 response. May park."""
        self._send_interim(103, [b"%b: %b\r\n" % pair for pair in hints.fields()])
        if self._carrier.may_buffer:
            self.flush()

    def send_continue(self) -> None:
        """Send a 100 response. May park."""
        self._send_interim(100, [])

    def _send_interim(self, code: int, lines: list[bytes]) -> None:
        self._await_turn()
        self._carrier.h2.send_head(self.stream_id, code, lines, False)
        self._carrier.flush(True)

    def start(
        self, head: ResponseHead, length: int | None, block: bytes, end: bool
    ) -> None:
        """Send the head and the first block. May park."""
        self._await_turn()
        self._send_head(head, length, end and not block)
        if block:
            self._send(block, end)
        else:
            self._carrier.flush(not end)
        if not end and self._carrier.may_buffer:
            self.flush()

    def end_sending(self) -> None:
        """Never called: applications close a WebSocket, and have no socket."""
        raise AssertionError("gunicorn.socket is offered over HTTP/1.1 only")

    def upgrade(self, protocol: str, head: ResponseHead | None) -> None:
        """Accept an extended CONNECT (RFC 8441): bytes in both directions. May park."""
        assert head is not None, "an application cannot send frames itself"
        self._await_turn()
        lines = [b"%b: %b\r\n" % pair for pair in head.fields()]
        self._carrier.h2.send_head(self.stream_id, 200, lines, False)
        self._carrier.flush(True)
        self._pass_small_pieces()
        self.update_backpressure()

    def _send_head(self, head: ResponseHead, length: int | None, end: bool) -> None:
        body = None if self.exchange is None else self.exchange.body
        if isinstance(body, RequestBody):
            # With the response the client needs no 100 Continue any more.
            body.client_waits = False
        common = self._carrier.server.common
        more: list[bytes] = []
        if common.adds_fields:
            more += (
                f"{name}: {value}\r\n".encode("latin-1")
                for name, value in common.added_to(head)
            )
        if (
            length is not None
            and head.content_length is None
            and head.code not in BODILESS_CODES
            and (length or not self._bodiless)
        ):
            # The length of the response to GET, also in that to HEAD.
            more.append(b"Content-Length: %d\r\n" % length)
        lines = head.lines(*common.date_and_server(), more)
        self._carrier.h2.send_head(self.stream_id, head.code, lines, end)

    def data(self, block: bytes) -> None:
        """Send a block. May park."""
        self._send(block, False)
        if self._carrier.may_buffer:
            # A block must not wait for the application's next one (PEP 3333).
            self.flush()

    def _send(self, block: bytes, end: bool) -> None:
        if self.waiting is not None:
            raise concurrent_write_error()
        if not self.connected:
            raise ClientDisconnected("the client has closed the stream")
        carrier = self._carrier
        rest = memoryview(block)
        if carrier.may_send:
            rest = rest[carrier.send_now(self.stream_id, rest, end) :]
            if not rest:
                return
        self.pending_ends = end
        self._park(rest)

    def _await_turn(self) -> None:
        """Park while earlier bytes of the connection wait for the client."""
        if self._carrier.blocked:
            self.pending_ends = False
            self._park(memoryview(b""))
        if not self.connected:
            raise ClientDisconnected("the client has closed the stream")

    def _park(self, pending: memoryview) -> None:
        """Park until the connection has sent `pending`, or the turn has come."""
        if self.waiting is not None:
            raise concurrent_write_error()
        self.waiting = suspension = Suspension(
            require_task("write()"), "the client to take more"
        )
        self.pending = pending
        self._carrier.enqueue(self)
        try:
            suspension.wait()
        except BaseException:
            # For example, a timeout set by the application. The client would take the
            # next block for the rest of this one.
            if self.pending:
                self._carrier.reset_stream(self, INTERNAL_ERROR)
                if self.exchange is not None:
                    self.exchange.peer_lost()
            else:
                self._carrier.dequeue(self)
            raise
        finally:
            self.waiting = None

    def sent(self, size: int, now: float) -> None:
        """Account for a sent part of `pending`, and resume the task after the last."""
        pending = self.pending
        assert pending is not None, "only a stream with unsent data sends"
        waiting = self.waiting
        if size == len(pending):
            self.pending = None
            if waiting is not None:
                waiting.resume()
            return
        self.pending = pending[size:]
        self.progressed(now)

    def progressed(self, when: float) -> None:
        """Restart the time limit of sending (`write_timeout`) at `when`, if later."""
        self.since = max(self.since, when)
        if self.waiting is not None:
            self.waiting.progressed(when)

    def turn(self) -> None:
        """Park for a reactor turn; no other task sends in between."""
        park_for_turn(self)

    def flush(self) -> None:
        """Park until the bytes sent have left this process.

        TLS joins small writes until the next turn, and the transport below it sends in
        the turn after that.
        """
        self.flushing = True
        try:
            sleep(0)
            sleep(0)
        finally:
            self.flushing = False

    def send_file(
        self, head: ResponseHead, length: int, fd: int, offset: int, count: int
    ) -> None:
        """Send the head only: sendfile() cannot send frames. May park."""
        self._await_turn()
        self._send_head(head, length, False)
        self._carrier.flush(False)

    def more_of_file(self, fd: int, offset: int, count: int) -> int:
        """Raise: `send_file` returns None."""
        raise AssertionError("sendfile() is not used on HTTP/2")

    def finish(self) -> None:
        """End the response. Never parks here."""
        if self.waiting is not None:
            raise concurrent_write_error()
        h2 = self._carrier.h2
        if h2.is_open(self.stream_id):
            h2.send_end(self.stream_id)
            self._carrier.flush(False)

    def answer(self, head: ResponseHead, body: bytes, last: bool = True) -> None:
        """Send a complete response generated by the server. Never parks."""
        carrier = self._carrier
        if not carrier.h2.is_open(self.stream_id):
            return
        end = self._bodiless or not body
        self._send_head(head, len(body), end)
        if not end:
            self.pending = memoryview(body)
            self.pending_ends = True
            self.since = carrier.server.hub.seconds()
            carrier.enqueue(self)
            carrier.send_pending()
        carrier.flush(False)

    def break_off(self) -> None:
        """Truncate the response: the client sees that the stream is reset."""
        self._carrier.reset_stream(self, INTERNAL_ERROR)

    def reset(self) -> None:
        """Reset the stream."""
        self._carrier.reset_stream(self, CANCEL)

    def ended(self, exchange: Carried) -> None:
        """Handle the end of the exchange's task."""
        self._carrier.exchange_ended(self)
        self.exchange = None

    # The request body. Called by the connection.

    def received(self, data: bytes, size: int) -> None:
        """Pass a part of the body to the exchange.

        Args:
            data: the part.
            size: its size with padding.
        """
        h2 = self._carrier.h2
        exchange = self.exchange
        if self._dropping or exchange is None:
            if self.draining < 0:
                h2.drop(size)
                return
            self.draining -= size
            h2.credit(self.stream_id, size)
            if self.draining < 0:
                self._carrier.reset_stream(self, NO_ERROR)
            return
        if size > len(data):
            h2.credit(self.stream_id, size - len(data))
        if not data:
            return
        self._unread += len(data)
        self.reading_paused = True
        body = exchange.body
        if (
            len(data) < _SMALL_BYTES
            and type(body) is RequestBody
            and body.reader is None
            and (body.held or self._small)
        ):
            self._small += data
            if len(self._small) >= _SMALL_BYTES:
                self._pass_small_pieces()
            return
        self._pass_small_pieces()
        body.received(data)
        if body.error is not None:
            self.stop_receiving()

    def _pass_small_pieces(self) -> None:
        small, self._small = self._small, b""
        if small and self.exchange is not None:
            self.exchange.body.received(small)

    def body_ended(self, refusal: Refusal | None) -> None:
        """Handle the end of the body; `refusal` is that of its trailers."""
        self.receiving = False
        self._pass_small_pieces()
        exchange = self.exchange
        if exchange is None:
            return
        if refusal is None:
            exchange.body.ended()
        else:
            exchange.body.fail(BadBody(refusal.status, refusal.reason))

    # The request body. Called by the exchange.

    def stored_body(self) -> None:
        """Return None: bodies arrive in pieces."""

    def read_body(self, wanted: int) -> bytes | None:
        """Return the small pieces that were joined; b"" if there are none."""
        small, self._small = self._small, b""
        if small:
            self.update_backpressure()
        return small

    def read_now(self) -> bool:
        """Deliver input that the reactor has not read; return False if there is none.

        Call from the reactor greenlet, at a deadline of the client.
        """
        return self._carrier.read_now()

    def update_backpressure(self) -> None:
        """Return the bytes that the application has read to the window."""
        exchange = self.exchange
        if exchange is None or self._dropping:
            return
        body = exchange.body
        if body.full:
            return
        read = self._unread - body.held - len(self._small)
        if read > 0:
            self._unread -= read
            self._carrier.h2.credit(self.stream_id, read)
            self._carrier.flush(True)
        self.reading_paused = self._unread > 0

    def stop_receiving(self) -> None:
        """Drop the rest of the body."""
        self._carrier.h2.drop(self.take_unread())

    def take_unread(self) -> int:
        """Drop the rest of the body; return the size of the part that has arrived.

        The caller returns it to a window.
        """
        self._dropping = True
        self._small = b""
        self.reading_paused = False
        unread, self._unread = self._unread, 0
        return unread
