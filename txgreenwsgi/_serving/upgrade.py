"""A request that switches to another protocol: its offer, and its byte stream.

After the switch the stream takes the place of the request body: the transport delivers
the bytes of the client to it, and the deadlines, the loss of the client and the end of
the exchange reach it as they reach a body. This file parks tasks. It must never know
the protocol that is spoken, nor the transport.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from txgreenwsgi._http.writer import ResponseHead
from txgreenwsgi._switching.errors import (
    Cancelled,
    ClientDisconnected,
    RequestTimeout,
    Stopping,
)
from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.thread_calls import crossing
from txgreenwsgi._websocket.errors import WebSocketRefused
from txgreenwsgi._websocket.readable_flag import ReadableFlag
from txgreenwsgi._wsgi.gateway import NoStartResponse
from txgreenwsgi._wsgi.upgraded_socket import UpgradedSocket

from .body import RequestBody

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._http.head import RequestHead
    from txgreenwsgi._switching.greenlets import Hub, Task
    from txgreenwsgi._websocket.stream import Listener, MessageCounts

    from .body import NoBody
    from .limits import Limits
    from .metering import RequestMetrics
    from .shutdown import Shutdown
    from .stream import Ends, Stream

    class Server(Protocol):
        """The interface of a server that this file uses."""

        hub: Hub
        shutdown: Shutdown
        metrics: RequestMetrics | None

    class Upgradable(Protocol):
        """The interface of an exchange that this file uses."""

        code: int
        head: RequestHead
        ends: Ends
        error: BaseException | None
        limits: Limits
        outcome: str
        stalled: float
        task: Task[None] | None

        @property
        def stream(self) -> Stream:
            """The transport of the exchange."""

        @property
        def server(self) -> Server:
            """The server of the exchange."""

        def upgrade(self, protocol: str, head: ResponseHead | None) -> UpgradedStream:
            """Switch to another protocol. May park."""

        def refuse_upgrade(self, error: WebSocketRefused) -> None:
            """Answer the request. Never parks."""

        def write(self, block: bytes) -> None:
            """Send a block. Parks under backpressure."""

        def end_upgraded(self) -> None:
            """End the stream. May park."""

        def end_upgraded_sending(self) -> None:
            """End the sending side; input is still received. Never parks."""


__all__ = [
    "ResponseAfterUpgrade",
    "UpgradedStream",
    "is_end_of_call",
    "offer_upgrade",
    "offers_websocket",
    "refusal",
]

WEBSOCKET: Final = "websocket"

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])")


class ResponseAfterUpgrade(Exception):
    """The application sends a response after the upgrade; it is discarded."""


def offers_websocket(head: RequestHead) -> bool:
    """Return whether a request with an Upgrade field may become a WebSocket.

    A GET request of HTTP/1.1 without a body (RFC 6455 section 4.1), or an extended
    CONNECT, for which the transport sets `upgrade` (RFC 8441 section 4).
    """
    offered = {part.strip() for part in head.upgrade.lower().split(",")}
    if WEBSOCKET not in offered:
        return False
    if head.version == "HTTP/1.1":
        return head.method == "GET" and head.content_length == 0
    return head.method == "CONNECT"


def is_end_of_call(error: BaseException) -> bool:
    """Return whether an exception is a normal end of an upgraded call.

    Applications end it in the way that the server they were written for expects: by
    StopIteration (gunicorn), or by a response, with or without `start_response`.
    """
    if isinstance(error, RuntimeError):
        # A generator around the application has converted it (PEP 479).
        return isinstance(error.__cause__, StopIteration)
    return isinstance(
        error,
        (
            NoStartResponse,
            ResponseAfterUpgrade,
            StopIteration,
            Stopping,
            WebSocketRefused,
        ),
    )


def refusal(error: WebSocketRefused) -> tuple[ResponseHead, bytes]:
    """Return the response to a request that cannot be upgraded."""
    body = (error.reason + "\n").encode("utf-8", "replace")
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        *error.fields,
    ]
    return ResponseHead(error.status, fields), body


def offer_upgrade(exchange: Upgradable, environ: WSGIEnvironment) -> None:
    """Add the keys to `environ` with which the application can upgrade."""
    offer = _Offer(exchange)
    environ["txgreenwsgi.upgrade"] = offer
    if offer.http2:
        # As a server behind a gateway sees it: frameworks route by the method.
        environ["REQUEST_METHOD"] = "GET"
        environ["HTTP_UPGRADE"] = WEBSOCKET
        environ["HTTP_CONNECTION"] = "Upgrade"
    else:
        ends = exchange.ends
        environ["gunicorn.socket"] = UpgradedSocket(
            partial(exchange.upgrade, WEBSOCKET, None),
            exchange.server.hub,
            (ends.remote_addr, ends.remote_port),
            (ends.server_name, ends.server_port),
        )


def _status_of(response: bytes) -> int:
    """Return the status code of a response that the application sends itself."""
    match = _STATUS_LINE.match(response)
    return int(match[1]) if match else 101


class _Offer:
    """The offer of one request: see `txgreenwsgi._websocket.stream.Offer`."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Upgradable) -> None:
        self._exchange = exchange

    @property
    def http2(self) -> bool:
        """Whether the request is an extended CONNECT."""
        return self._exchange.head.version != "HTTP/1.1"

    @property
    def stopping(self) -> bool:
        """Whether the server is stopping."""
        return self._exchange.server.shutdown.stopping

    @property
    def counts(self) -> MessageCounts | None:
        """The counters of messages; None without metrics."""
        metrics = self._exchange.server.metrics
        return None if metrics is None else metrics.messages

    @crossing
    def accept(self, fields: Sequence[tuple[str, str]]) -> UpgradedStream:
        """Send the response that switches protocols, and switch. May park."""
        head = ResponseHead("200 OK", list(fields))
        return self._exchange.upgrade(WEBSOCKET, head)

    @crossing
    def refuse(self, error: WebSocketRefused) -> None:
        """Answer the request without an upgrade. Never parks."""
        self._exchange.refuse_upgrade(error)


class UpgradedStream:
    """The byte stream of an upgraded exchange, in the place of its body.

    Args:
        exchange: the exchange, in the state RESPONDING.
        body: its body so far.

    Attributes:
        at_end: whether the client has ended its side, or is lost; or further bytes are
            discarded.
        client_ended: whether the client has ended its side, and may still receive.
        error: the error that each further read and send raises; None if there is none.
        reader: the suspension of the parked reader; None if there is none.
        listener: the consumer of the bytes; None while `receive` returns them.
        received_bytes: the number of bytes that have arrived, of the body before too.
    """

    complete: Final = False
    client_waits: Final = False
    max_missing_bytes: Final = float("inf")

    __slots__ = (
        "_buffer",
        "_exchange",
        "_flag",
        "_sealed",
        "_senders",
        "_sending",
        "at_end",
        "client_ended",
        "error",
        "listener",
        "reader",
        "received_bytes",
    )

    def __init__(
        self, exchange: Upgradable, body: RequestBody | NoBody | UpgradedStream
    ) -> None:
        self._exchange: Upgradable | None = exchange
        self._buffer = bytearray()
        self._flag: ReadableFlag | None = None
        # Whether the last bytes were sent.
        self._sealed = False
        # Whether a task sends, and the tasks that wait for their turn.
        self._sending = False
        # None before the first wait: an empty deque takes 600 bytes.
        self._senders: deque[Suspension] | None = None
        self.at_end = False
        self.client_ended = False
        self.error: BaseException | None = None
        self.reader: Suspension | None = None
        self.listener: Listener | None = None
        self.received_bytes: int = body.received_bytes
        if exchange.head.method == "CONNECT":
            # The bytes of the new protocol have arrived as those of a body.
            while isinstance(body, RequestBody) and body.held:
                self._buffer += body.receive()
            self.at_end = body.complete

    # Called by the transport and the exchange, in the reactor greenlet.

    @property
    def held(self) -> int:
        """The number of bytes received and not taken by the application."""
        return len(self._buffer) if self.listener is None else self.listener.held

    @property
    def full(self) -> bool:
        """Whether reading from the client should pause."""
        if self.listener is not None:
            return self.listener.full
        exchange = self._exchange
        return exchange is not None and (
            len(self._buffer) >= exchange.limits.input_window
        )

    def received(self, piece: bytes) -> None:
        """Add bytes of the client."""
        self.received_bytes += len(piece)
        if self.listener is not None:
            self.listener.received(piece)
            self.update_backpressure()
        elif self.error is None and not self.at_end:
            self._buffer += piece
            self._notify()

    def ended(self) -> None:
        """Mark the end of the client's bytes."""
        if self.at_end:
            return
        self.at_end = True
        if self.listener is not None:
            self.listener.ended()
        self._notify()

    def lose(self, error: BaseException) -> None:
        """Handle the loss of the client after the stream was closed."""
        self.ended()

    def fail(self, error: BaseException) -> None:
        """Handle bytes of the client that the transport cannot accept."""
        self.ended()

    def cut(self, error: BaseException) -> None:
        """Raise `error` in further reads and sends; the caller ends those in progress.

        The bytes that were received remain readable.
        """
        if self.error is None:
            self.error = error

    def check(self, now: float) -> None:
        """Apply the deadlines of the protocol."""
        if self.listener is not None and self._exchange is not None:
            self.listener.check(now - self._exchange.stalled)

    def server_stops(self) -> None:
        """Begin to close: the server is stopping."""
        if self.listener is not None:
            self.listener.server_stops()

    def drop(self) -> None:
        """End all use of the stream at the end of the request."""
        self._exchange = None
        self._buffer.clear()
        # An application's thread may still use it as a socket. Drop an earlier error,
        # whose traceback refers to this object.
        self.error = OSError(
            errno.EBADF, "the request of this connection has ended, and closed it"
        )
        self.at_end = True
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.dropped()
        self._notify()
        self._pass_turn()
        if self._flag is not None:
            self._flag.close()
            self._flag = None

    def _notify(self) -> None:
        self._update_flag()
        if self.reader is not None:
            self.reader.resume()

    def _update_flag(self) -> None:
        if self._flag is not None:
            self._flag.set(bool(self._buffer) or self.at_end)

    def call_ended(self, failed: bool) -> None:
        """Close the stream at the end of the application's call. May park.

        Args:
            failed: whether the call has raised an exception.
        """
        exchange, listener = self._exchange, self.listener
        if exchange is None:
            return
        try:
            if listener is not None:
                listener.call_ended(failed)
                if listener.lost and exchange.outcome == "finished":
                    exchange.outcome = "disconnected"
            if not failed:
                self.close()
        except (Cancelled, ClientDisconnected, RequestTimeout, Stopping):
            return  # the connection closes without the rest

    # Called by the application, in a task.

    @property
    def available(self) -> int:
        """The number of bytes that `receive` returns without a wait."""
        return len(self._buffer)

    def receive(self, size: int, peek: bool = False) -> bytes:
        """Return up to `size` bytes, b"" at the end. May park.

        Raises:
            BaseException: the error that has cut the exchange.
            RuntimeError: another task receives.
        """
        while not self._buffer:
            if self.error is not None:
                raise self.error
            if self.at_end:
                return b""
            if self.reader is not None:
                raise RuntimeError(
                    "two tasks receive from one connection at the same time: let one "
                    "task receive"
                )
            self.reader = suspension = Suspension(
                require_task("recv()"), "bytes of the client"
            )
            try:
                suspension.wait()
            finally:
                self.reader = None
        data = bytes(self._buffer[:size])
        if not peek:
            del self._buffer[:size]
            self._update_flag()
            self.update_backpressure()
        return data

    def update_backpressure(self) -> None:
        """Resume reading from the client if there is room. Never parks."""
        exchange = self._exchange
        if exchange is not None and exchange.stream.reading_paused:
            exchange.stream.update_backpressure()

    def send(self, data: bytes, last: bool = False) -> None:
        """Send `data` in one piece. Parks while the client or another sender is slow.

        Args:
            data: the bytes.
            last: whether further sends raise ClientDisconnected.

        Raises:
            BaseException: the error that has cut the exchange.
            ClientDisconnected: the client is lost.
            OSError: the request has ended.
        """
        self._take_turn()
        try:
            exchange = self._usable()
            self._sealed |= last
            if data:
                if not exchange.code:
                    exchange.code = _status_of(data)
                exchange.write(data)
        finally:
            self._pass_turn()

    def close(self) -> None:
        """End the sending side; further input is discarded. May park.

        A no-op if the client is lost or the request has ended.
        """
        if self._exchange is None:
            return
        self._take_turn()
        try:
            self._sealed = True
            if self._exchange is not None:
                self._exchange.end_upgraded()
        finally:
            self._pass_turn()
        self.ended()

    def end_sending(self) -> None:
        """End the sending side; input is still received. May park.

        A no-op if the client is lost or the request has ended.
        """
        if self._exchange is None:
            return
        self._take_turn()
        try:
            if not self._sealed and self._exchange is not None:
                self._sealed = True
                self._exchange.end_upgraded_sending()
        finally:
            self._pass_turn()

    def end_receiving(self) -> None:
        """Discard further input; the bytes that have arrived remain. Never parks."""
        self.ended()

    @property
    def may_outlive_input(self) -> bool:
        """Whether the application may send after the end of the client's bytes.

        Without a listener, for which the end of the input is that of the connection.
        """
        return self.listener is None and self._exchange is not None

    def reset(self) -> None:
        """Abort the connection or stream. Never parks."""
        if self._exchange is not None:
            self._exchange.stream.reset()

    def fileno(self) -> int:
        """Return a descriptor that is readable while `receive` would not park."""
        if self._flag is None:
            self._connected()
            self._flag = ReadableFlag()
            self._update_flag()
        return self._flag.fileno()

    def attach(self, listener: Listener) -> None:
        """Pass the bytes to `listener` from now on, those in the buffer first."""
        self.listener = listener
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            listener.received(data)
        if self.at_end:
            listener.ended()
        self.update_backpressure()

    def _usable(self) -> Upgradable:
        exchange = self._connected()
        if self._sealed:
            raise ClientDisconnected("the connection was closed by the application")
        return exchange

    def _connected(self) -> Upgradable:
        exchange = self._exchange
        if exchange is None:
            assert self.error is not None, "a dropped stream has an error"
            raise self.error
        if exchange.error is not None:
            raise exchange.error
        return exchange

    def _take_turn(self) -> None:
        """Park until no other task sends."""
        if not self._sending:
            self._sending = True
            return
        suspension = Suspension(require_task("send()"), "another task that sends")
        if self._senders is None:
            self._senders = deque()
        self._senders.append(suspension)
        try:
            suspension.wait()
        except BaseException:
            if suspension.answered:
                self._pass_turn()
            elif suspension in self._senders:
                self._senders.remove(suspension)
            raise

    def _pass_turn(self) -> None:
        """Let the next task send."""
        while self._senders:
            if self._senders.popleft().resume():
                return
        self._sending = False
