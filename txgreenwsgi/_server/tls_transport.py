"""TLS connections of our own listening ports.

Twisted's TLS passes each piece of data through several objects, collects what is
written until the next turn of the reactor, and passes it to a transport that sends in
the turn after that. Here a connection reads from its socket, decrypts, encrypts and
sends at once, in buffers that all connections of the listener share
(`docs/decisions/0037-own-tls-transport.md`).

Below is Twisted's plain transport: it owns the socket, reports when a slow client
accepts more, and closes. Above is the channel, for which this is the transport.

It knows transports and TLS. It must never know HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IPullProducer,
    ISSLTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Factory
from zope.interface import implementer

from txgreenwsgi._states import TransitionTable
from txgreenwsgi._tls.records import PIECE_BYTES, Buffers, Records, is_supported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IAddress, IPushProducer, ITransport
    from twisted.python.failure import Failure

    from .site import GreenSite
    from .sockets import Sockets
    from .transports import PlainTransport

__all__ = ["TLS_CONNECTION", "TLSFactory", "TLSTransport", "own_factory"]

#: The handshake is not complete.
SHAKING: Final = "shaking hands"
#: Both ends may send.
OPEN: Final = "open"
#: We have sent close_notify, or nothing can be sent. Input is still read.
CLOSING: Final = "closing"
#: The connection is lost or was aborted.
CLOSED: Final = "closed"

TLS_CONNECTION: Final = TransitionTable(
    "a TLS connection",
    {
        SHAKING: {"complete": OPEN, "close": CLOSING, "lose": CLOSED},
        OPEN: {"close": CLOSING, "lose": CLOSED},
        CLOSING: {"close": CLOSING, "lose": CLOSED},
        CLOSED: {"lose": CLOSED},
    },
)
_ON_COMPLETE: Final = TLS_CONNECTION.moves("complete")
_ON_CLOSE: Final = TLS_CONNECTION.moves("close")
_ON_LOSE: Final = TLS_CONNECTION.moves("lose")

#: Size of a read from a socket.
_READ_BYTES = 65536

#: Size of the headers and tags of the records of a piece of a body.
_OVERHEAD_BYTES = 1024

_NO_RECORDS = cast("Records", None)
_NO_TRANSPORT = cast("PlainTransport", None)


class TLSFactory(Factory):
    """A factory of TLS connections in front of a site.

    Args:
        connect: returns the TLS state of a new connection, in accept state and with
            the connection as its app data.
        site: the site.

    Attributes:
        connect: as given.
        wrappedFactory: the site, by the name that Twisted's TLS has for it.
        buffers: memory that the connections share.
        sockets: the poller of the site.
    """

    noisy = False

    def __init__(
        self, connect: Callable[[Any], SSL.Connection], site: GreenSite
    ) -> None:
        self.connect = connect
        self.wrappedFactory = site
        self.buffers = Buffers()
        self.sockets: Sockets = site.sockets

    def doStart(self) -> None:
        """Start the site."""
        site: Any = self.wrappedFactory
        site.doStart()

    def doStop(self) -> None:
        """Stop the site."""
        site: Any = self.wrappedFactory
        site.doStop()

    def buildProtocol(self, addr: IAddress | None) -> TLSTransport | None:  # type: ignore[override]
        """Return the protocol of a new connection; None above `max_connections`."""
        channel: Any = self.wrappedFactory.buildProtocol(addr)
        return None if channel is None else TLSTransport(self, channel)


def own_factory(given: Any, site: GreenSite) -> Any:
    """Return a `TLSFactory` in place of a factory of Twisted's TLS.

    Args:
        given: a `TLSMemoryBIOFactory` in front of `site`.
        site: the site.

    Returns:
        `given` if it is in front of something else, or if this version of Twisted or
        pyOpenSSL is not known.
    """
    # Its name in Twisted 25.5 and later, and before.
    create = getattr(given, "_creatorCallable", None) or getattr(
        given, "_createConnection", None
    )
    if create is None or given.wrappedFactory is not site or not is_supported():
        return given
    return TLSFactory(create, site)


@implementer(IProtocol, ISSLTransport, INegotiated)
class TLSTransport:
    """The TLS of one connection: protocol of a plain transport, transport of a channel.

    Call from the reactor greenlet or a task; no method parks.

    Args:
        factory: its factory.
        channel: the protocol above.

    Attributes:
        sends_at_once: True: `write` leaves nothing in this process unless the client
            is slow.
        state: one of the states of `TLS_CONNECTION`.
        factory: as given.
        wrappedProtocol: as given; None when the connection is lost.
        transport: the plain transport.
    """

    __slots__ = (
        "_fd",
        "_producer",
        "_records",
        "_rest",
        "_socket",
        "_sockets",
        "factory",
        "state",
        "transport",
        "wrappedProtocol",
    )

    sends_at_once = True

    def __init__(self, factory: TLSFactory, channel: Any) -> None:
        self.state = SHAKING
        self.factory = factory
        self.wrappedProtocol: Any = channel
        self.transport = _NO_TRANSPORT
        self._sockets = factory.sockets
        self._records = _NO_RECORDS
        self._socket: Any = None
        self._producer: IPushProducer | None = None
        # Ciphertext that the client has not accepted. Meanwhile, a `_Drain` is the
        # producer of the plain transport.
        self._rest: memoryview | bytes = b""
        self._fd = -1

    # The protocol of the plain transport.

    def makeConnection(self, transport: ITransport) -> None:
        """Begin a connection."""
        plain: PlainTransport = transport  # type: ignore[assignment]
        self.transport = plain
        self._socket = plain.socket
        if self._sockets.adopt(self, plain):
            self._fd = plain.fileno()
        connection = self.factory.connect(self)
        connection.set_app_data(self)
        self._records = Records(connection, self.factory.buffers)
        self.wrappedProtocol.makeConnection(self)

    def connectionMade(self) -> None:
        """No-op, required by IProtocol: `makeConnection` does the work."""

    def logPrefix(self) -> str:
        """Return the name of this protocol in Twisted's log lines."""
        return "txgreenwsgi"

    def doRead(self) -> BaseException | None:
        """Read from the socket; return the reason if the connection is lost."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.dataReceived(data)
        return None

    def receive(self, size: int) -> bytes:
        """Read from the socket, for a task; b"" if there is no plaintext yet.

        Args:
            size: the preferred size in bytes.
        """
        if self.state is not OPEN:
            return b""
        try:
            data = self._socket.recv(size + _OVERHEAD_BYTES)
        except OSError:
            return b""  # no data, or an error that the reactor will report
        if not data:
            return b""  # end of stream, which the reactor will report
        records = self._records
        plain = records.decrypt(data)
        if records.ended:
            self._end_input(records)
        return plain

    def hung_up(self) -> None:
        """No-op: a TLS connection does not watch for it."""

    def dataReceived(self, data: bytes) -> None:
        """Decrypt bytes from the client, and pass them to the channel."""
        records = self._records
        if self.state is SHAKING:
            if not self._shake(records, data):
                return
            plain = records.decrypt(b"")
            self._flush(records)
            records.shrink()
        elif self.state is CLOSED:
            return
        else:
            plain = records.decrypt(data)
        if plain:
            self.wrappedProtocol.dataReceived(plain)
            if not records.ended:
                return
        if self.state is not CLOSED:
            # For example, an answer to a key update (RFC 8446 section 4.6.3).
            self._flush(records)
            if records.ended:
                self._end_input(records)

    def _shake(self, records: Records, data: bytes) -> bool:
        """Continue the handshake; return whether it is complete."""
        try:
            complete = records.shake(data)
        except SSL.Error:
            if self.state is SHAKING:  # else a callback has aborted the connection
                self.state = _ON_CLOSE[self.state]
                # OpenSSL has produced an alert.
                self._pass_on(records.take())
                self.transport.loseConnection()
            return False
        self._flush(records)
        if not complete or self.state is not SHAKING:
            return False
        self.state = _ON_COMPLETE[self.state]
        channel = self.wrappedProtocol
        if IHandshakeListener.providedBy(channel):
            channel.handshakeCompleted()
        return self.state is not CLOSED

    def _end_input(self, records: Records) -> None:
        """Close after the client's close_notify, or after its error.

        Not if the application may still send (RFC 8446 section 6.1).
        """
        if not records.failed and self._outlives_input:
            self.wrappedProtocol.readConnectionLost()
            return
        if self.state is OPEN:
            self._send_close_notify(records)
        self.transport.loseConnection()

    @property
    def _outlives_input(self) -> bool:
        """Whether the channel continues at the end of the client's bytes."""
        return getattr(self.wrappedProtocol, "outlives_input", False)

    def connectionLost(self, reason: Failure) -> None:
        """Handle the loss of the connection, for any reason."""
        self.state = _ON_LOSE[self.state]
        if self._fd >= 0:
            self._sockets.forget(self, self._fd)
        channel, self.wrappedProtocol = self.wrappedProtocol, None
        producer, self._producer = self._producer, None
        if self._records is not _NO_RECORDS:
            self._records.connection.set_app_data(None)  # no reference cycle
        if producer is not None:
            producer.stopProducing()
        channel.connectionLost(reason)

    # The transport of the channel.

    @property
    def lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.state is not OPEN

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt and send bytes. Discards them when the connection is closing."""
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[bytes | memoryview]) -> None:
        """As `write`, for several parts that leave together if they are short."""
        if self.state is SHAKING:
            raise RuntimeError("write() was called before the end of the handshake")
        records = self._records
        pending = 0
        for part in data:
            start, left = 0, len(part)
            while left:
                if self.state is not OPEN:
                    return
                size = min(left, PIECE_BYTES - pending)
                if not records.encrypt(part, start, size):
                    self.abortConnection()
                    return
                start += size
                left -= size
                pending += size
                if pending == PIECE_BYTES:
                    self._flush(records)
                    pending = 0
        if pending:
            self._flush(records)

    def release_memory(self) -> None:
        """Release the memory that long messages have left. Call between requests."""
        if self.state is OPEN:
            self._records.shrink()

    def _flush(self, records: Records) -> None:
        """Send the bytes that OpenSSL has produced."""
        data = records.take()
        if not data or self.state is CLOSED:
            return
        if self.state is CLOSING:
            self._pass_on(data)  # behind close_notify
        elif self._rest:
            self._rest = b"".join((self._rest, data))
            self._pause()
        else:
            sent = self._send(data)
            if sent == len(data) or sent < 0:
                return
            # Registering calls its resumeProducing(), while there is no rest.
            self.transport.registerProducer(_Drain(self), False)
            self.transport.startWriting()
            self._rest = memoryview(bytes(data[sent:]))
            self._pause()

    def _pause(self) -> None:
        if self._producer is not None:
            self._producer.pauseProducing()

    def _send(self, data: memoryview | bytes) -> int:
        """Return how many bytes the kernel takes; -1, if the connection is broken."""
        try:
            sent: int = self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.abortConnection()
            return -1
        return sent

    def send_rest(self) -> None:
        """Send more of the rest: the plain transport is writable."""
        if not self._rest:
            return
        sent = self._send(self._rest)
        if sent < 0:
            return
        rest = self._rest[sent:]
        # An empty view would keep the bytes behind it.
        self._rest = rest or b""
        producer = self._producer
        if rest:
            self.transport.startWriting()
            progressed = getattr(producer, "progressed", None)
            if sent and progressed is not None:
                progressed()
        else:
            self.transport.unregisterProducer()
            if producer is not None:
                producer.resumeProducing()

    def _pass_on(self, data: memoryview | bytes = b"") -> None:
        """Let the plain transport send the rest, and then `data`.

        It does so before it closes, and not before the next turn: an abort in this one
        must not look like a clean end.
        """
        if self._rest:
            self.transport.unregisterProducer()
            self.transport.write(bytes(self._rest))
            self._rest = b""
        if data:
            self.transport.write(bytes(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause `producer` while the client is slow.

        Raises:
            RuntimeError: there is a producer, or this one is not a streaming one.
        """
        if self._producer is not None or not streaming:
            raise RuntimeError(
                f"cannot register {producer!r}: give one IPushProducer at a time"
            )
        if self.state is CLOSED:
            producer.stopProducing()
        else:
            self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def loseConnection(self) -> None:
        """Send close_notify, and close when the client has sent its own.

        In its handshake, a connection is aborted.
        """
        if self.state is SHAKING:
            self.abortConnection()
            return
        records = self._records
        if self.state is OPEN:
            self._send_close_notify(records)
        if self.state is CLOSING and records.ended and not self._outlives_input:
            self.transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """As `loseConnection`: TLS ends both directions."""
        self.loseConnection()

    def _send_close_notify(self, records: Records) -> None:
        records.shut_down()
        self._pass_on(records.take())
        self.state = _ON_CLOSE[self.state]

    def abortConnection(self) -> None:
        """Close at once, without close_notify."""
        if self.state is not CLOSED:
            self.state = _ON_LOSE[self.state]
            self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """Pause reading."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume reading."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Close: the channel wants no more input."""
        self.loseConnection()

    def getHost(self) -> Any:
        """Return the address of the server."""
        return self.transport.getHost()

    def getPeer(self) -> Any:
        """Return the address of the client."""
        return self.transport.getPeer()

    def getHandle(self) -> SSL.Connection:
        """Return the TLS state."""
        connection: SSL.Connection = self._records.connection
        return connection

    def getPeerCertificate(self) -> object:
        """Return the certificate of the client; None if it has sent none."""
        return self.getHandle().get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN has selected; None if none."""
        return self.getHandle().get_alpn_proto_negotiated() or None

    # ITCPTransport

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set TCP_NODELAY, unless the poller has done so."""
        if self._fd < 0:
            self.transport.setTcpNoDelay(enabled)

    def getTcpNoDelay(self) -> bool:
        """Return TCP_NODELAY."""
        return bool(self._plain.getTcpNoDelay())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Set SO_KEEPALIVE."""
        self._plain.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Return SO_KEEPALIVE."""
        return bool(self._plain.getTcpKeepAlive())

    @property
    def _plain(self) -> Any:
        return self.transport


@implementer(IPullProducer)
class _Drain:
    """Continues sending when the plain transport of a connection is writable.

    The connection cannot be the producer: `resumeProducing` is also its method for
    reading.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: TLSTransport) -> None:
        self._connection = connection

    def resumeProducing(self) -> None:
        """Send more."""
        self._connection.send_rest()

    def stopProducing(self) -> None:
        """No-op: the connection is lost, which the plain transport reports."""
