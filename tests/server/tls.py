"""TLS in memory over Twisted's TCP connection: the server's and a client's end.

The server's TLS is our own, as on our ports, or Twisted's, as on the endpoints of
other programs.

The client is the standard library's `ssl` on two buffers. This file knows TLS. It must
never know HTTP.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any

from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.certificate import TLS_OPTIONS
from txgreenwsgi._server.tls_transport import own_factory
from txgreenwsgi.testing import MemoryClient

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryServer

__all__ = ["PlainClient", "TLSClient", "tls_factory"]


def tls_factory(server: MemoryServer, tls: Any = TLS_OPTIONS, own: bool = True) -> Any:
    """Return a factory of TLS connections in front of the site of a server.

    Args:
        server: the server.
        tls: the source of the TLS state of each connection.
        own: whether the TLS is our own; else it is Twisted's.
    """
    factory = TLSMemoryBIOFactory(tls, False, server.site, clock=server.reactor)
    return own_factory(factory, server.site) if own else factory


class TLSClient:
    """The client's end of a TLS connection to a server in memory.

    Args:
        server: the server to connect to.
        room: as in `MemoryServer.connect`, in bytes of ciphertext.
        factory: the factory of the connections; by default our own TLS in front of
            the site.
        first: bytes to send before the handshake.
        tls: the source of the server's TLS state, if there is no `factory`.
        context: the client's context; None for one that verifies nothing.
        name: the server name that the client sends; None for none.

    Attributes:
        plain: the connection below TLS.
        received: all plaintext that was read so far.
        goodbye: whether the server has sent close_notify.
    """

    def __init__(
        self,
        server: MemoryServer,
        room: float = float("inf"),
        factory: Any = None,
        first: bytes = b"",
        *,
        tls: Any = TLS_OPTIONS,
        context: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        if factory is None:
            factory = tls_factory(server, tls)
        self.plain = PlainClient(server, factory)
        if first:
            self.plain.send(first)
        self.received = b""
        self.goodbye = False
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=name
        )
        self._seen = 0
        self._shaken = False
        self._turn()
        self.plain.read_slowly(room)

    @property
    def channel(self) -> Any:
        """The protocol above TLS."""
        return self.plain.channel.wrappedProtocol

    @property
    def closed(self) -> bool:
        """Whether the server has closed the TCP connection."""
        return self.plain.closed

    def send(self, data: bytes) -> None:
        """Send plaintext, and read the reply."""
        self._tls.write(data)
        self._turn()

    def encrypted(self, data: bytes) -> bytes:
        """Return plaintext as a TLS record, which the caller delivers."""
        self._tls.write(data)
        return self._outgoing.read()

    def goodbye_record(self) -> bytes:
        """Return close_notify as a TLS record, which the caller delivers."""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            self._tls.unwrap()
        return self._outgoing.read()

    def read(self, size: int | None = None) -> bytes:
        """Let `size` bytes of ciphertext pass, for slow readers."""
        before = len(self.received)
        self.plain.read(size)
        self._turn()
        return self.received[before:]

    def disconnect(self) -> None:
        """Disconnect without close_notify."""
        self.plain.disconnect()

    def _turn(self) -> None:
        while True:
            progress = self._take()
            outgoing = self._outgoing.read()
            if outgoing:
                self.plain.send(outgoing)
            if not progress and not outgoing:
                self.plain.settle()
                if self._seen == len(self.plain.received):
                    return

    def _take(self) -> bool:
        """Decrypt the received bytes; return whether anything was done."""
        new = self.plain.received[self._seen :]
        self._seen += len(new)
        self._incoming.write(new)
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._shaken = True
            while data := self._tls.read(65536):
                self.received += data
            self.goodbye = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.goodbye = True
        return bool(new)


class PlainClient(MemoryClient):
    """The connection below: as in memory, with TLS in place of the channel."""

    def __init__(self, server: MemoryServer, factory: Any) -> None:
        site = server.site
        server.site = factory
        try:
            super().__init__(server, float("inf"))
        finally:
            server.site = site
        server.clients.append(self)

    def read_slowly(self, room: float) -> None:
        """Limit the bytes that the server can send before the client reads."""
        self.socket.room = room
        self._reads_by_itself = room == float("inf")
