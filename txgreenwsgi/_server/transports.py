"""The parts of Twisted's transports that this room uses, as interfaces for types.

Twisted's own interfaces describe a stream (`ITransport`) or TCP (`ITCPTransport`);
the methods below are those that all stream transports of Twisted have in fact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from twisted.internet.interfaces import IAddress, IProducer
    from twisted.python.failure import Failure

__all__ = ["Consumer", "DirectTransport", "PlainTransport", "StreamTransport"]


class Consumer(Protocol):
    """Takes bytes, and pauses and resumes their producer."""

    def write(self, data: bytes) -> None: ...

    def registerProducer(self, producer: IProducer, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...


class StreamTransport(Consumer, Protocol):
    """The transport of a stream connection: TCP, UNIX, TLS."""

    def getHost(self) -> IAddress: ...

    def getPeer(self) -> IAddress: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def loseConnection(self) -> None: ...

    def loseWriteConnection(self) -> None: ...

    def abortConnection(self) -> None: ...


class DirectTransport(StreamTransport, Protocol):
    """A transport whose `write` leaves nothing unsent unless the client is slow.

    Attributes:
        sends_at_once: True.
        lost: whether nothing can be sent any more.
    """

    sends_at_once: bool

    @property
    def lost(self) -> bool: ...

    def write(self, data: bytes | memoryview) -> None: ...

    def writeSequence(self, data: Iterable[bytes]) -> None: ...

    def receive(self, size: int) -> bytes: ...

    def release_memory(self) -> None: ...


class PlainTransport(StreamTransport, Protocol):
    """The transport of a connection without a layer above its socket.

    Attributes:
        socket: the socket, which does not block.
        reactor: watches the descriptor.
        disconnected: whether the connection is lost.
    """

    socket: socket.socket
    reactor: object
    disconnected: int

    def fileno(self) -> int: ...

    def startReading(self) -> None: ...

    def stopReading(self) -> None: ...

    def startWriting(self) -> None: ...

    def stopWriting(self) -> None: ...

    def doRead(self) -> BaseException | None: ...

    def doWrite(self) -> BaseException | int | None: ...

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def readConnectionLost(self, reason: Failure) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...
