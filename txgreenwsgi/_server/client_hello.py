"""The first message of a TLS client, read before any TLS state exists.

The state of a TLS connection takes 20 times the memory of a plain one. So a connection
gets it when the first message (ClientHello) is complete: a client that connects and
sends nothing, or only a part, costs little.

The message names the protocols that the client wants to speak (ALPN). If none of them
is supported, the client gets the alert that RFC 7301 requires; Twisted would select an
empty protocol instead.

A header of the PROXY protocol in front of the message has been read: see
`proxy_header`.

This file knows the layout of one message. It must never decide anything else about TLS:
a message that it does not understand goes to OpenSSL.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.tcp import Port
from twisted.logger import Logger

from .ends import host_and_port
from .first_bytes import FirstBytes, FirstBytesFactory

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IListeningPort
    from twisted.internet.protocol import Protocol

    from .site import GreenSite

__all__ = [
    "NO_APPLICATION_PROTOCOL",
    "ClientHelloFactory",
    "Incomplete",
    "offered_protocols",
    "read_client_hellos",
]

_log = Logger()

#: The alert no_application_protocol (RFC 7301 section 3.2), fatal, in one record.
NO_APPLICATION_PROTOCOL: Final = bytes([21, 3, 1, 0, 2, 2, 120])

# RFC 8446 section 5.1, 4 and 4.2; RFC 7301 section 3.1.
_HANDSHAKE_RECORD: Final = 22
_CLIENT_HELLO: Final = 1
_ALPN: Final = 16
_ALPN_BYTES: Final = _ALPN.to_bytes(2, "big")

#: Maximum size of a message. OpenSSL refuses longer ones too.
MAX_HELLO_BYTES: Final = 16384


class Incomplete(Exception):
    """More bytes are needed."""


class _Unknown(Exception):
    """The bytes are not a message that this file understands."""


class _Fields:
    """Reads fields of a message one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        start = self._at
        self._at = end = start + size
        if end > len(self._data):
            raise _Unknown
        return self._data[start:end]

    def number(self, size: int) -> int:
        """Return an unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Return a field that is preceded by its length in `size` bytes."""
        return self.take(self.number(size))


def offered_protocols(data: bytes) -> list[bytes] | None:
    """Return the protocols that a ClientHello offers by ALPN.

    Args:
        data: the first bytes of a TLS connection.

    Returns:
        None if the client does not use ALPN, or the bytes are no such message.

    Raises:
        Incomplete: the message is not complete.
    """
    if _is_whole(data) and _ALPN_BYTES not in data:
        return None  # the common case of clients without ALPN
    try:
        hello = _Fields(_message(data))
        hello.take(2 + 32)  # version and random
        for size in (1, 2, 1):  # session id, cipher suites, compression methods
            hello.vector(size)
        extensions = _Fields(hello.vector(2) if hello else b"")
        while extensions:
            kind = extensions.number(2)
            content = extensions.vector(2)
            if kind == _ALPN:
                names = _Fields(_Fields(content).vector(2))
                offered = []
                while names:
                    offered.append(names.vector(1))
                return offered
    except _Unknown:
        pass
    return None


def _is_whole(data: bytes) -> bool:
    """Return whether the first record is complete and has the whole message."""
    if len(data) < 9 or data[0] != _HANDSHAKE_RECORD or data[5] != _CLIENT_HELLO:
        return False
    record = int.from_bytes(data[3:5], "big")
    message = 4 + int.from_bytes(data[6:9], "big")
    return message <= record <= len(data) - 5


def _message(data: bytes) -> bytes:
    """Return the body of the ClientHello, which may span several records."""
    message = b""
    at = 0
    while True:
        if data[at : at + 1] not in (b"", bytes([_HANDSHAKE_RECORD])):
            raise _Unknown
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        message += data[at + 5 : at + 5 + length]
        if message[:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise _Unknown
        end = 4 + int.from_bytes(message[1:4], "big")
        if len(message) > 3 and len(message) >= end:
            return message[4:end]
        if len(message) > 3 and end > MAX_HELLO_BYTES:
            raise _Unknown
        at += 5 + length
        if at >= len(data):
            if at > 2 * MAX_HELLO_BYTES:
                raise _Unknown
            raise Incomplete


class ClientHelloFactory(FirstBytesFactory):
    """A factory that passes connections to a TLS factory after their first message.

    Args:
        below: the factory of TLS connections.
        site: the site behind it.
    """

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Return the protocol of a new connection; None above `max_connections`."""
        return None if self.site.is_full else _ClientHello(self, addr)


class _ClientHello(FirstBytes):
    """A connection that has not sent its first message."""

    _data = b""

    def dataReceived(self, data: bytes) -> None:
        """Collect the message, then pass the connection on, or refuse it."""
        self._data += data
        try:
            offered = offered_protocols(self._data)
        except Incomplete:
            return
        known = self._site.acceptableProtocols()
        if offered is None or not set(known).isdisjoint(offered):
            self._pass_on(self._addr, self._data)
            return
        _log.info(
            "TLS refused: {address}: no common protocol, the client offers {offered}",
            address=host_and_port(self.transport.getPeer())[0],
            offered=", ".join(name.decode("latin-1") for name in offered[:10]),
        )
        self.transport.write(NO_APPLICATION_PROTOCOL)
        self.transport.loseConnection()


def read_client_hellos(port: IListeningPort, site: GreenSite) -> None:
    """Serve the connections of `port` with our own TLS, after their first message.

    A no-op for ports without Twisted's TLS.
    """
    tls: Any = sys.modules.get("twisted.protocols.tls")
    if tls is None or not isinstance(port, Port):
        return
    if type(port.factory) is tls.TLSMemoryBIOFactory:
        # Here, because pyOpenSSL is optional.
        from .tls_transport import own_factory

        port.factory = ClientHelloFactory(own_factory(port.factory, site), site)
