"""Connections between a client and a server under test, and their reactors.

The clock of both reactors is virtual: only `advance` moves it, on real
sockets too. This file moves bytes. It must never know HTTP.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from zope.interface import implementer

from txgreenwsgi.testing import MemoryReactor

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi.testing import MemoryClient, MemoryServer

__all__ = [
    "Link",
    "MemoryLink",
    "SocketLink",
    "StoppableMemoryReactor",
    "TlsLink",
    "VirtualTimeReactor",
    "sever",
    "virtual_time_reactor",
]

#: Receive buffer of a slow client on a socket, in bytes; the kernel doubles it.
_SLOW_BUFFER = 8192

#: Number of bytes that a slow client in memory accepts before a send would block.
_SLOW_ROOM = 20000


#: Maximum number of turns of a TLS handshake.
_HANDSHAKE_TURNS = 10


class Link(Protocol):
    """The client's end of one connection.

    Attributes:
        reading: whether the client reads from the connection; a slow client
            does not.
        stays_open: whether the client keeps its sending side when it has seen the end.
        in_sips: whether `take` reads from a socket only once; ignored in memory.
    """

    reading: bool
    stays_open: bool
    in_sips: bool

    @property
    def ended(self) -> bool:
        """Whether the client has read all data and the end of the connection."""

    @property
    def arrived(self) -> int:
        """The number of bytes that have arrived at the client, read or not."""

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""

    def take(self) -> bytes:
        """Return the bytes received since the last call."""

    def end(self) -> None:
        """Close the sending side only (a half-close)."""

    def disconnect(self) -> None:
        """Close the connection; later sends of the server fail."""


class MemoryLink:
    """A connection in memory."""

    def __init__(self, server: MemoryServer, slow: bool) -> None:
        self._client: MemoryClient = (
            server.connect(room=_SLOW_ROOM) if slow else server.connect()
        )
        self._slow = slow
        self._taken = 0
        self._gone = False
        self._drained = not slow
        self.reading = not slow
        self.stays_open = False
        self.in_sips = False

    @property
    def ended(self) -> bool:
        """Whether the client has seen the end of the connection."""
        return self._gone or (
            self.reading
            and self._drained
            and self._client.closed
            and not self._client.socket.to_client
            and self._taken == len(self._client.received)
        )

    @property
    def arrived(self) -> int:
        """The number of bytes that have arrived at the client."""
        return self._client.socket.sent

    def send(self, data: bytes) -> None:
        """Send bytes; the server processes them before this returns."""
        if not self._gone:
            self._client.send(data)

    def take(self) -> bytes:
        """Return the bytes received since the last call."""
        if self._gone:
            return b""
        if self._slow and self.reading:
            self._drained = not self._client.read()
        received = self._client.received
        data, self._taken = received[self._taken :], len(received)
        return data

    def end(self) -> None:
        """Close the sending side."""
        if not self._gone:
            self._client.end()

    def disconnect(self) -> None:
        """Reset the connection."""
        if not self._gone:
            self._gone = True
            self._client.disconnect()


class SocketLink:
    """A TCP connection over the loopback interface."""

    def __init__(self, port: int, slow: bool) -> None:
        self._socket = socket.socket()
        if slow:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        self._socket.connect(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.slow = slow
        # A second small piece must not wait for the acknowledgement of the first.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._unsent = b""
        self._taken = 0
        self.reading = not slow
        self.ended = False
        self.stays_open = False
        self.in_sips = False

    @property
    def arrived(self) -> int:
        """The number of bytes that have arrived at the client."""
        try:
            return self._taken + len(self._socket.recv(1_000_000, socket.MSG_PEEK))
        except BlockingIOError:
            return self._taken

    def send(self, data: bytes) -> None:
        """Send bytes; `take` sends the rest that the kernel does not accept."""
        self._unsent += data
        self._send_rest()

    def _send_rest(self) -> None:
        if self._unsent and (not self.ended or self.stays_open):
            with suppress(BlockingIOError, ConnectionError):
                sent = self._socket.send(self._unsent)
                self._unsent = self._unsent[sent:]

    def take(self) -> bytes:
        """Return the bytes received since the last call."""
        self._send_rest()
        parts: list[bytes] = []
        while self.reading and not self.ended:
            try:
                part = self._socket.recv(262144)
            except BlockingIOError:
                break
            except ConnectionError:
                part = b""
            if not part:
                self.ended = True
                if not self.stays_open:
                    self._socket.close()
                break
            parts.append(part)
            self._taken += len(part)
            if self.in_sips:
                break
        return b"".join(parts)

    def end(self) -> None:
        """Close the sending side."""
        self._socket.shutdown(socket.SHUT_WR)

    def disconnect(self) -> None:
        """Close the connection."""
        self.ended = True
        self._socket.close()


class TlsLink:
    """TLS over another connection, with the client of the standard library.

    Args:
        plain: the connection below.
        protocol: the protocol that it offers by ALPN; "" for none.
    """

    def __init__(self, plain: Link, protocol: str = "") -> None:
        self._plain = plain
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if protocol:
            context.set_alpn_protocols([protocol])
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._closed = False  # by the server, with close_notify
        self.stays_open = False
        self.in_sips = False
        reading, plain.reading = plain.reading, True
        self._shake_hands()
        plain.reading = reading

    def _shake_hands(self) -> None:
        for _ in range(_HANDSHAKE_TURNS):
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:  # noqa: PERF203
                self._plain.send(self._outgoing.read())
                self._incoming.write(self._plain.take())
            else:
                self._plain.send(self._outgoing.read())
                return
        raise AssertionError("the TLS handshake does not end")

    @property
    def reading(self) -> bool:
        """Whether the client reads from the connection."""
        return self._plain.reading

    @reading.setter
    def reading(self, reading: bool) -> None:
        self._plain.reading = reading

    @property
    def ended(self) -> bool:
        """Whether the client has seen the end of the connection."""
        return self._closed or self._plain.ended

    @property
    def arrived(self) -> int:
        """The number of ciphertext bytes that have arrived at the client."""
        return self._plain.arrived

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        if not self._closed or self.stays_open:
            self._tls.write(data)
            self._plain.send(self._outgoing.read())

    def take(self) -> bytes:
        """Return the bytes received since the last call."""
        self._incoming.write(self._plain.take())
        parts: list[bytes] = []
        with suppress(ssl.SSLWantReadError):
            # The error is the end of the server's bytes, after that of the client's.
            with suppress(ssl.SSLZeroReturnError):
                while part := self._tls.read(65536):
                    parts.append(part)
            self._closed = True
        return b"".join(parts)

    def end(self) -> None:
        """Send a close_notify, which in TLS 1.3 ends only this direction."""
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            self._tls.unwrap()
        self._plain.send(self._outgoing.read())

    def disconnect(self) -> None:
        """Close the lower connection without a close_notify."""
        self._plain.disconnect()


class _ShutdownTriggers:
    """The shutdown triggers of IReactorCore."""

    def __init__(self) -> None:
        self._triggers: dict[int, tuple[str, Callable[[], Any]]] = {}
        self._last_trigger = 0
        super().__init__()

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        callable: Callable[..., Any],  # noqa: A002 - Twisted's name
        *args: object,
        **kwargs: object,
    ) -> Any:
        """Store the trigger; `shut_down` fires those of "shutdown"."""
        self._last_trigger += 1
        if eventType == "shutdown":
            self._triggers[self._last_trigger] = (
                phase,
                lambda: callable(*args, **kwargs),
            )
        return self._last_trigger

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        """Remove the trigger."""
        del self._triggers[triggerID]

    def callWhenRunning(
        self,
        callable: Callable[..., Any],  # noqa: A002 - Twisted's name
        *args: object,
        **kwargs: object,
    ) -> Any:
        """Call `function` at once: a reactor under test counts as running."""
        callable(*args, **kwargs)

    def shut_down(self) -> Deferred[None]:
        """Fire the triggers of the phase "before", as a stopping reactor does.

        Returns:
            A Deferred that fires when they have finished: then a real reactor would
            close all connections.
        """
        before = [
            trigger for phase, trigger in self._triggers.values() if phase == "before"
        ]
        self._triggers.clear()
        done: Deferred[None] = Deferred()
        waited: Any = DeferredList([maybeDeferred(trigger) for trigger in before])
        waited.addCallback(lambda _: done.callback(None))
        return done


@implementer(IReactorCore)
class StoppableMemoryReactor(_ShutdownTriggers, MemoryReactor):
    """A reactor in memory that can be shut down like a real one."""

    running = True

    def _refuse(self, *args: Any, **keywords: Any) -> Any:
        raise AssertionError("the test itself drives a reactor in memory")

    crash = iterate = resolve = run = stop = _refuse

    def fireSystemEvent(self, eventType: str) -> None:
        """Raise: use `shut_down` instead."""
        self._refuse()


class VirtualTimeReactor(_ShutdownTriggers, SelectReactor):
    """A reactor with real sockets and a virtual clock.

    It is not installed and never runs: the harness iterates it. `advance` moves the
    clock.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        super().__init__()
        self._triggers.clear()  # the reactor's own

    def seconds(self) -> float:
        """Return the virtual time."""
        return self._now

    def pass_time(self, amount: float) -> None:
        """Advance the clock."""
        self._now += amount

    @property
    def due(self) -> bool:
        """Whether a delayed call is due."""
        return any(call.getTime() <= self._now for call in self.getDelayedCalls())


_reactors: list[VirtualTimeReactor] = []


def virtual_time_reactor() -> VirtualTimeReactor:
    """Return the only reactor of this kind, created at the first call.

    Its descriptors stay open as long as the process runs.
    """
    if not _reactors:
        _reactors.append(VirtualTimeReactor())
    return _reactors[0]


def sever(reactor: Any) -> None:
    """Close all connections and ports of `reactor`, as a stopped reactor does.

    Unsent data is lost.
    """
    for selectable in reactor.removeAll():
        selectable.connectionLost(Failure(CONNECTION_LOST))
