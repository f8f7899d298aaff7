"""The port between an exchange and the transport that carries it.

A *stream* carries one request at a time: an HTTP/1.1 connection between two
requests, a `Request` of twisted.web, one stream of an HTTP/2 connection. An
exchange sends its response through the stream, and the stream reports what the
client sends and when it disconnects.

This file contains interfaces, and what implementations of `Backpressure` share. It must
never know the implementations.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from txgreenwsgi._switching.greenlets import Suspension, require_task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txgreenwsgi._http.writer import EarlyHints, ResponseHead

__all__ = [
    "Backpressure",
    "Carried",
    "Ends",
    "Output",
    "Stream",
    "concurrent_write_error",
    "park_for_turn",
]


class Ends(NamedTuple):
    """Both ends of a connection, as text, for the environ and the access log.

    Address and port of a UNIX socket's peer are "".

    Attributes:
        variables: further variables for the environ of each request; None on plain
            connections.
    """

    server_name: str
    server_port: str
    remote_addr: str
    remote_port: str
    url_scheme: str
    variables: Mapping[str, str] | None = None


class Backpressure(Protocol):
    """The send side of a stream, as an exchange sees it.

    Attributes:
        waiting: the suspension of the task that is parked by backpressure; None
            otherwise.
        flushing: whether a task is parked in `turn` or a flush, without `waiting`.
    """

    waiting: Suspension | None

    @property
    def flushing(self) -> bool: ...

    def turn(self) -> None:
        """Park for a reactor turn; no other task sends in between."""


class Output(Backpressure, Protocol):
    """A byte stream towards the client, with backpressure.

    Every method may park, except `send_last`, `has_unread_input`, `detach` and
    `disconnected`. One task sends at a time.

    Attributes:
        may_buffer: whether the transport may still buffer bytes that were sent.
    """

    may_buffer: bool

    def send(self, data: bytes) -> None:
        """Send `data`; return when the transport accepts more."""

    def send_parts(self, *parts: bytes) -> None:
        """Send long parts in order without joining them."""

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        """Send a head and `count` bytes of a file with sendfile().

        Returns:
            The number of bytes of the file that were sent, 0 at its end; None,
            with nothing sent, if sendfile() cannot be used.
        """

    def flush(self) -> None:
        """Flush: return when the bytes sent have left this process, if possible."""

    def send_last(self, data: bytes) -> bool:
        """Send the last bytes before the connection is closed. Never parks.

        Returns:
            Whether the client has accepted so much that the connection may also
            stay open.
        """

    def has_unread_input(self) -> bool:
        """Return whether the kernel is known to buffer unread bytes of the client."""

    def detach(self) -> None:
        """Release the transport so that it can close; nothing more is sent."""

    def disconnected(self) -> None:
        """Drop the references to the lost connection."""


class Carried(Protocol):
    """The callbacks of an exchange for its stream.

    The stream calls them in the reactor greenlet, and passes pieces of the body to
    `exchange.body` directly.
    """

    def peer_lost(self) -> None:
        """Handle the loss of the client."""

    def check(self, now: float) -> None:
        """Apply the deadlines of the request; `now` is the reactor's clock."""

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""


class Stream(Protocol):
    """The channel between one exchange and its client.

    The exchange calls `early_hints`, `start`, `data`, `send_file`, `upgrade` and
    `finish` in a task, where they may park; all other methods also in the reactor
    greenlet, where they never park. It does not use the stream after `finish`,
    `answer`, `break_off` or `reset`.

    Attributes:
        output: the send side; `output.waiting` shows backpressure. On HTTP/2, that of
            one stream.
        waiting: `output.waiting`, also where nothing has been sent and there is no
            send side yet.
        reading_paused: whether reading from the client is paused.
        ends: both ends of the connection.
        connected: False once the stream has noticed that the client disconnected.
        body_is_stored: whether the transport stores complete request bodies before an
            exchange begins. If not, bodies arrive in pieces.
    """

    reading_paused: bool
    ends: Ends
    body_is_stored: bool

    @property
    def output(self) -> Backpressure: ...

    @property
    def waiting(self) -> Suspension | None: ...

    @property
    def connected(self) -> bool: ...

    # The response.

    def early_hints(self, hints: EarlyHints) -> None:
        """Send 103 Early Hints (RFC 8297) before the response. May park.

        Not called for an HTTP/1.0 client.
        """

    def start(
        self, head: ResponseHead, length: int | None, block: bytes, end: bool
    ) -> None:
        """Send the head and the first block of a response in one piece. May park.

        Args:
            head: the head, without framing fields that the transport adds.
            length: the length of the whole body in bytes; None if unknown.
            block: the first block of the body, b"" for none. It never exceeds
                `length`.
            end: whether this block is the last.
        """

    def data(self, block: bytes) -> None:
        """Send a non-empty block. Parks under backpressure."""

    def send_file(
        self, head: ResponseHead, length: int, fd: int, offset: int, count: int
    ) -> int | None:
        """Send the head, and `count` bytes of a file with sendfile(). May park.

        Returns:
            The number of bytes of the file sent, 0 at its end; None, with the head
            sent, if sendfile() cannot be used.
        """

    def more_of_file(self, fd: int, offset: int, count: int) -> int:
        """Send more of the file after `send_file`. May park.

        Returns:
            The number of bytes sent, 0 at the end of the file.
        """

    def finish(self) -> None:
        """End the response. May park.

        After `upgrade`, end the sending side: nothing more is sent, further input is
        discarded, and the connection or stream closes once the client has the bytes.

        Raises:
            RuntimeError: another task is still parked in a send.
        """

    def end_sending(self) -> None:
        """End the sending side of an upgraded stream. Never parks.

        Behind all blocks; the stream still passes the bytes of the client. `finish`
        follows.
        """

    def upgrade(self, protocol: str, head: ResponseHead | None) -> None:
        """Switch to another protocol: a byte stream in both directions. May park.

        RFC 9110 section 7.8 for HTTP/1.1, RFC 8441 for HTTP/2. Called instead of
        `start`, with an `UpgradedStream` as the body of the exchange. From now on the
        stream passes the bytes of the client unchanged to `exchange.body.received`,
        and their end to `exchange.body.ended`; bytes that have arrived before come
        first. `data` sends a block unchanged. Reading pauses while
        `exchange.body.full` is true, and `update_backpressure` resumes it.

        Args:
            protocol: the new protocol, such as "websocket".
            head: the fields of the response: 101 on HTTP/1.1, 200 on HTTP/2, whatever
                the status of `head`. None if the application sends the response
                itself, on HTTP/1.1 only.
        """

    def answer(self, head: ResponseHead, body: bytes, last: bool = True) -> None:
        """Send a complete response generated by the server. Never parks.

        Call only if nothing was sent for the exchange before.

        Args:
            head: the head, with the Content-Length of `body`.
            body: the body; not sent in response to HEAD.
            last: whether an HTTP/1.1 connection of ours must close after it.
        """

    def break_off(self) -> None:
        """Truncate the response in a way that the client can detect."""

    def reset(self) -> None:
        """Abort the connection or stream at once."""

    # The request body.

    def send_continue(self) -> None:
        """Send 100 Continue (RFC 9110 section 10.1.1). May park."""

    def stored_body(self) -> IO[bytes] | None:
        """Return the complete body as a file; None unless `body_is_stored`."""

    def read_body(self, wanted: int) -> bytes | None:
        """Read a piece of the body for the calling task. Never parks.

        Returns:
            b"" if no data is available; None if pieces were added to the body.
        """

    def read_now(self) -> bool:
        """Deliver input that has arrived and the reactor has not read. Never parks.

        Called before a deadline of the client is applied.

        Returns:
            False if there is none.
        """

    def update_backpressure(self) -> None:
        """Pause or resume reading, according to the amount that the body buffers."""

    def stop_receiving(self) -> None:
        """Discard further input: it cannot be trusted or used."""

    # The end.

    def ended(self, exchange: Carried) -> None:
        """Handle the end of the exchange's task."""


def concurrent_write_error() -> RuntimeError:
    """Return the error for a send while another task is parked in a send."""
    return RuntimeError("two tasks write the response of one request at the same time")


def park_for_turn(output: Backpressure) -> None:
    """Park for a reactor turn; `output.waiting` makes other sends fail in between.

    Raises:
        RuntimeError: another task is parked in a send.
    """
    if output.waiting is not None:
        raise concurrent_write_error()
    task = require_task("write()")
    output.waiting = suspension = Suspension(task, "a turn")
    task.hub.at_next_turn(suspension.resume)
    try:
        suspension.wait()
    finally:
        output.waiting = None
