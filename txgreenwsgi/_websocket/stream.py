"""The interfaces between an upgraded request and the code that speaks on it.

`_serving` implements `ByteStream` and `Offer`; `WebSocket` implements `Listener`. This
file must never know their implementations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .errors import WebSocketRefused

__all__ = ["ByteStream", "Listener", "MessageCounts", "Offer"]


class Listener(Protocol):
    """The consumer of the bytes of a stream, which gets them as they arrive.

    The stream calls the methods in the reactor greenlet, except `call_ended`.

    Attributes:
        held: the number of bytes received and not taken by the application.
        full: whether reading from the client should pause.
        lost: whether the connection was lost without a closing handshake.
    """

    @property
    def held(self) -> int: ...

    @property
    def full(self) -> bool: ...

    @property
    def lost(self) -> bool: ...

    def received(self, data: bytes) -> None:
        """Take bytes of the client. Never parks."""

    def ended(self) -> None:
        """Handle the end of the client's bytes. Never parks."""

    def check(self, now: float) -> None:
        """Apply the deadlines; `now` excludes stalls of the reactor."""

    def server_stops(self) -> None:
        """Begin to close: the server is stopping. Never parks."""

    def call_ended(self, failed: bool) -> None:
        """Close at the end of the application's call. Called in its task; may park.

        Args:
            failed: whether the call has raised an exception.
        """

    def dropped(self) -> None:
        """Handle the end of the request: the stream is not usable any more."""


class ByteStream(Protocol):
    """A connection after its upgrade: a byte stream in both directions.

    Call `receive`, `send` and `close` in a task. One task receives at a time; several
    may send, and each `send` is sent in one piece.
    """

    @property
    def at_end(self) -> bool:
        """Whether the client has ended its side, or is lost."""

    @property
    def available(self) -> int:
        """The number of bytes that `receive` returns without a wait."""

    def receive(self, size: int, peek: bool = False) -> bytes:
        """Return up to `size` bytes, b"" at the end. May park.

        Args:
            size: at least 1.
            peek: whether the bytes stay in the buffer.
        """

    def send(self, data: bytes, last: bool = False) -> None:
        """Send `data`. Parks while the client is slow, or another task sends.

        Args:
            data: sent in one piece.
            last: whether further sends raise ClientDisconnected.

        Raises:
            ClientDisconnected: the client is lost.
        """

    def close(self) -> None:
        """End the sending side; further input is discarded. May park."""

    def end_sending(self) -> None:
        """End the sending side; input is still received. May park.

        A no-op if the client is lost or the request has ended.
        """

    def end_receiving(self) -> None:
        """Discard further input; the bytes that have arrived remain. Never parks."""

    def reset(self) -> None:
        """Abort the connection or stream. Never parks."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while `receive` would not park."""

    def attach(self, listener: Listener) -> None:
        """Pass the bytes to `listener` from now on, those in the buffer first."""

    def update_backpressure(self) -> None:
        """Resume reading if `listener` is no longer full. Never parks."""


class MessageCounts(Protocol):
    """The counters of messages, of all WebSockets of a server.

    Call from the reactor's thread.

    Attributes:
        sent: the number of messages sent since it was last published.
        sent_bytes: their size, before compression.
        received: the number of messages received since then.
        received_bytes: their size, decompressed.
    """

    sent: int
    sent_bytes: int
    received: int
    received_bytes: int

    def closed(self, code: int) -> None:
        """Count a WebSocket that is closed, by its close code. Never parks."""


class Offer(Protocol):
    """The possibility to upgrade a request: `txgreenwsgi.upgrade` in its environ."""

    @property
    def http2(self) -> bool:
        """Whether the request is an extended CONNECT (RFC 8441)."""

    @property
    def stopping(self) -> bool:
        """Whether the server is stopping."""

    @property
    def counts(self) -> MessageCounts | None:
        """The counters of messages; None without metrics."""

    def accept(self, fields: Sequence[tuple[str, str]]) -> ByteStream:
        """Send the response that switches protocols, and switch. May park.

        Args:
            fields: its fields, without those that the transport adds.
        """

    def refuse(self, error: WebSocketRefused) -> None:
        """Answer the request without an upgrade. Never parks."""
