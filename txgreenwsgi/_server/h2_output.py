"""Sending on an HTTP/2 connection, which many tasks share.

A writer takes bytes at once, and reports when the client has not accepted all of them:
then nothing more should be written until it has. No method parks: the tasks wait for
their turn in `h2_channel.py`.

This file knows transports. It must never know frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .transports import Consumer, PlainTransport, StreamTransport

__all__ = ["SocketWriter", "TransportWriter", "Writer", "writer_for"]


class WriterOwner(Protocol):
    """The owner of a writer."""

    def writable(self) -> None:
        """Continue to write. Called in the reactor greenlet."""

    def send_failed(self) -> None:
        """Drop the connection: a send failed."""


class Writer(Protocol):
    """The send side of a connection.

    Attributes:
        blocked: whether written bytes wait for the client.
        since: time of the last progress while it is blocked, by the clock given.
        may_buffer: whether the transport sends in a later turn of the reactor.
    """

    blocked: bool
    since: float
    may_buffer: bool

    def write(self, data: bytes) -> None:
        """Send bytes, or keep them until the client accepts them."""

    def detach(self) -> None:
        """Release the transport so that it can close behind the bytes written."""

    def disconnected(self) -> None:
        """Drop the references to the lost connection."""


class _NoOwner:
    """Discards late notifications."""

    def writable(self) -> None:
        """Do nothing."""

    send_failed = writable


_NO_OWNER = _NoOwner()


@implementer(IPullProducer)
class SocketWriter:
    """A writer straight to the socket of a plain connection.

    Twisted's buffer stays empty: the transport reports that the socket is writable, as
    for `SocketOutput`.

    Args:
        transport: the transport of the connection.
        owner: the owner of the connection.
        seconds: the clock.
    """

    __slots__ = (
        "_owner",
        "_seconds",
        "_socket",
        "_transport",
        "_unsent",
        "blocked",
        "since",
    )

    may_buffer = False

    def __init__(
        self,
        transport: PlainTransport,
        owner: WriterOwner,
        seconds: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._socket: socket.socket = transport.socket
        self._owner = owner
        self._seconds = seconds
        self._unsent = bytearray()
        self.blocked = False
        self.since = 0.0

    def write(self, data: bytes) -> None:
        if self.blocked:
            self._unsent += data
            return
        sent = self._send(data)
        if 0 <= sent < len(data):
            # This calls resumeProducing() at once, while nothing is unsent.
            self._transport.registerProducer(self, False)
            self._unsent += memoryview(data)[sent:]
            self.blocked = True
            self.since = self._seconds()
            self._transport.startWriting()

    def _send(self, data: bytes | bytearray) -> int:
        """Send; return the number of bytes accepted, -1 if the connection is lost."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._owner.send_failed()
            return -1

    def detach(self) -> None:
        if self.blocked:
            self._transport.unregisterProducer()
            self.blocked = False
            # Twisted sends it before it closes.
            self._transport.write(bytes(self._unsent))
            self._unsent.clear()

    def disconnected(self) -> None:
        self._owner = _NO_OWNER
        self._unsent.clear()

    # Called by the transport.

    def resumeProducing(self) -> None:
        """Send what the client has not accepted. Called when the socket is writable."""
        if not self._unsent:
            return
        sent = self._send(self._unsent)
        if sent < 0:
            return
        if sent:
            del self._unsent[:sent]
            self.since = self._seconds()
        if self._unsent:
            self._transport.startWriting()
        else:
            self.blocked = False
            self._transport.unregisterProducer()
            self._owner.writable()

    def stopProducing(self) -> None:
        """No-op: the connection is lost, which the channel notices."""


@implementer(IPushProducer)
class TransportWriter:
    """A writer through `transport.write` and the push producer interface.

    Args: as for `SocketWriter`; the transport is any with `write` and
        `registerProducer`.
    """

    __slots__ = (
        "_owner",
        "_seconds",
        "_transport",
        "_writing",
        "blocked",
        "may_buffer",
        "since",
    )

    def __init__(
        self, transport: Consumer, owner: WriterOwner, seconds: Callable[[], float]
    ) -> None:
        self._transport = transport
        self._owner = owner
        self._seconds = seconds
        self._writing = False
        self.blocked = False
        self.since = 0.0
        self.may_buffer = not getattr(transport, "sends_at_once", False)
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        self._writing = True
        try:
            self._transport.write(data)
        finally:
            self._writing = False
        if getattr(self._transport, "lost", False):
            self._owner.send_failed()

    def detach(self) -> None:
        self._transport.unregisterProducer()

    def disconnected(self) -> None:
        self._owner = _NO_OWNER

    # Called by the transport.

    def pauseProducing(self) -> None:
        """Stop writing. Called also from inside of `write`."""
        if not self.blocked:
            self.blocked = True
            self.since = self._seconds()

    def resumeProducing(self) -> None:
        """Continue to write."""
        self.blocked = False
        if not self._writing:
            self._owner.writable()

    def progressed(self) -> None:
        """Note that the client has accepted a part. Called by our own TLS."""
        self.since = self._seconds()

    def stopProducing(self) -> None:
        """No-op: the connection is lost, which the channel notices."""
        self.blocked = False


def writer_for(
    transport: StreamTransport, owner: WriterOwner, seconds: Callable[[], float]
) -> Writer:
    """Return the writer of a connection."""
    if isinstance(transport, Connection) and not transport.TLS:
        plain: PlainTransport = transport  # type: ignore[assignment]
        return SocketWriter(plain, owner, seconds)
    return TransportWriter(transport, owner, seconds)
