"""The port between an exchange and the transport that carries it.

A *stream* carries one request at a time: an HTTP/1.1 connection between two
requests, a `Request` of twisted.web, one stream of an HTTP/2 connection. An
exchange sends its response through the stream, and the stream reports what the
client sends and when it leaves.

This file contains interfaces. It must never know their implementations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._switching.greenlets import Suspension

__all__ = ["Carried", "Ends", "Output", "Stream", "concurrent_write_error"]


class Ends(NamedTuple):
    """Both ends of a connection, as the environ and the access log name them.

    All are text; addresses and ports are "" for a UNIX socket's peer.
    """

    server_name: str
    server_port: str
    remote_addr: str
    remote_port: str
    url_scheme: str


class Output(Protocol):
    """A byte stream towards the client, with backpressure.

    Every method may park, except `send_last`, `more_waits`, `detach` and
    `disconnected`. One task sends at a time.

    Attributes:
        waiting: the suspension of the task that is parked until the client has
            taken more; None otherwise.
        left_behind: whether the transport may still buffer bytes that were sent.
    """

    waiting: Suspension | None
    left_behind: bool

    def send(self, data: bytes) -> None:
        """Send `data`; return when the client may be sent more."""

    def send_parts(self, *parts: bytes) -> None:
        """Send long parts in order without joining them."""

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        """Send a head and `count` bytes of a file by the kernel.

        Returns:
            The number of bytes of the file that were sent, 0 at its end; None,
            with nothing sent, where the kernel cannot do it.
        """

    def turn(self) -> None:
        """Park for a turn of the reactor; no other task sends in between."""

    def hand_over(self) -> None:
        """Return when the bytes sent have left this process, as far as possible."""

    def send_last(self, data: bytes) -> None:
        """Send `data` before the connection is closed. Never parks."""

    def more_waits(self) -> bool:
        """Return whether the kernel is known to hold unread bytes of the client."""

    def detach(self) -> None:
        """Let the transport close: no more bytes are sent."""

    def disconnected(self) -> None:
        """Drop the references to the connection, which is lost."""


class Carried(Protocol):
    """The exchange as its stream sees it: the callbacks.

    All are called in the reactor greenlet. The pieces of the body go to
    `exchange.body` directly.
    """

    def peer_lost(self) -> None:
        """Take note that the client is gone."""

    def check(self, now: float) -> None:
        """Apply the deadlines of the request; `now` is the reactor's clock."""


class Stream(Protocol):
    """The way of one exchange to its client.

    The exchange calls `start`, `data`, `send_file` and `finish` in a task, where
    they may park; everything else in the reactor greenlet too, where nothing
    parks. It never uses the stream after `finish`, `answer`, `break_off` or
    `reset`.

    Attributes:
        output: its backpressure: `output.waiting` is the task parked in a send.
        reading_paused: whether the client is not read from at present.
        ends: both ends of the connection.
        connected: whether the client is there, as far as is known.
    """

    output: Output
    reading_paused: bool
    ends: Ends

    @property
    def connected(self) -> bool: ...

    # The response.

    def start(
        self, head: ResponseHead, length: int | None, block: bytes, end: bool
    ) -> None:
        """Send the head and the first block of a response in one piece. May park.

        Args:
            head: the head, without framing fields of the transport's own.
            length: the length of the whole body in bytes; None if unknown.
            block: the first block of the body, b"" for none. It never exceeds
                `length`.
            end: whether no block follows.
        """

    def data(self, block: bytes) -> None:
        """Send a block that is not empty. Parks while the client is behind."""

    def send_file(
        self, head: ResponseHead, length: int, fd: int, offset: int, count: int
    ) -> int | None:
        """Send the head, and `count` bytes of a file by the kernel. May park.

        Returns:
            The number of bytes of the file sent, 0 at its end; None, with the head
            sent, where this stream or the kernel cannot do it.
        """

    def more_of_file(self, fd: int, offset: int, count: int) -> int:
        """Send more of the file that `send_file` began. May park.

        Returns:
            The number of bytes sent, 0 at the end of the file.
        """

    def finish(self) -> None:
        """End the response. May park.

        Raises:
            RuntimeError: another task is still parked in a send.
        """

    def answer(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole response of the server's own; the last one. Never parks.

        Nothing was sent for the exchange before.
        """

    def break_off(self) -> None:
        """Leave the response incomplete, so that the client can tell."""

    def reset(self) -> None:
        """Cut the client off at once."""

    # The request body.

    def send_continue(self) -> None:
        """Tell the client to send the body (RFC 9110 section 10.1.1). May park."""

    def read_body(self, wanted: int) -> bytes | None:
        """Read a piece of the body for the task that asks, without parking.

        Returns:
            b"" if nothing has come; None if pieces were given to the body.
        """

    def update_backpressure(self) -> None:
        """Pause or resume reading, now that the body holds less or more."""

    def stop_receiving(self) -> None:
        """Ignore what the client still sends: it cannot be trusted or used."""

    # The end.

    def ended(self, exchange: Carried) -> None:
        """Take note that the task of the exchange has ended."""


def concurrent_write_error() -> RuntimeError:
    """Return the error of a task that sends while another one is parked in a send."""
    return RuntimeError("two tasks write the response of one request at the same time")
