"""Listening ports of a worker, on sockets that the master process has opened.

An endpoint string means the same in a worker as in a server without a master, TLS
included. Only the socket below comes from the master: when the worker is ready, and
again when it accepts for a neighbour. Closing a port in the worker leaves the socket
and its backlog to the other processes.

It knows Twisted's ports. It must never know the master.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from zope.interface import implementer

from .endpoints import make_endpoint
from .ports import AdoptedUNIXPort, ListeningProxy, use_socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import (
        IAddress,
        IProtocolFactory,
        IStreamServerEndpoint,
    )

__all__ = ["SlotPort", "slot_endpoint"]


_EXCLUSIVE: Final[int] = getattr(select, "EPOLLEXCLUSIVE", 0)
# Bound at import: the application may patch `select` later.
_EPoll: Final[Any] = getattr(select, "epoll", ())

#: Maximum number of connections that are accepted from a shared socket in one turn.
_SHARED_ACCEPTS: Final = 4

#: Time for which a worker with more connections than others does not accept.
_PAUSE_SECONDS: Final = 0.02


def slot_endpoint(reactor: object, text: str) -> IStreamServerEndpoint:
    """Return the endpoint for a string, whose port is a `SlotPort`.

    Raises:
        EndpointError: as `make_endpoint`.
    """
    return make_endpoint(_SlotReactor(reactor), text)


@implementer(IListeningPort)
class SlotPort:
    """A port that accepts on any number of sockets, none at first.

    Call from the reactor greenlet.

    Args:
        factory: makes the protocols, and wraps them in TLS for instance.
        reactor: the reactor.

    Attributes:
        factory: as given.
        on_open: called with each port of Twisted before it accepts.
        on_close: called with each before it is released.
        has_excess: returns whether this worker has more connections than the others,
            which should accept instead.
    """

    def __init__(self, factory: IProtocolFactory, reactor: Any) -> None:
        self.factory = factory
        self.on_open: Callable[[IListeningPort], object] = lambda port: None
        self.on_close: Callable[[IListeningPort], object] = lambda port: None
        self.has_excess: Callable[[], bool] = lambda: False
        self._reactor = reactor
        self._ports: dict[int, Any] = {}
        self._shared: list[Any] = []
        self._listening = False

    def startListening(self) -> None:
        """Start the factory."""
        self._listening = True
        self.factory.doStart()

    def adopt(
        self, slot: int, adopted: socket.socket, *, shared: bool = False
    ) -> IListeningPort | None:
        """Accept on a socket; None if the port has been closed in the meantime.

        Args:
            slot: a number for `release`. Another socket with this number is released.
            adopted: owned by this port from now on.
            shared: whether other workers accept on the socket too.
        """
        self.release(slot)
        if not self._listening:
            adopted.close()
            return None
        adopted.setblocking(False)
        port: Any
        if adopted.family == socket.AF_UNIX:
            port = _SlotUNIXPort(adopted, self.factory, self._reactor)
        else:
            port = _SlotTCPPort(adopted, self.factory, self._reactor)
        port.prepare()
        self._ports[slot] = port
        self.on_open(port)
        if shared:
            self._share(port)
        port.startReading()
        opened: IListeningPort = port
        return opened

    def _share(self, port: Any) -> None:
        """Divide the connections of a shared socket between the workers.

        The kernel tends to wake the same worker again and again. One with more
        connections than the others stops accepting; it looks at the socket from time
        to time, in case the others are blocked.
        """
        accept_all = port.doRead
        start = port.startReading
        self._shared.append(port)

        def do_read() -> None:
            port.numberAccepts = _SHARED_ACCEPTS
            accept_all()
            if self.has_excess():
                port.stopReading()
                self._reactor.callLater(_PAUSE_SECONDS, resume)

        def resume() -> None:
            if not port.connected or port.disconnecting:
                return
            if self.has_excess():
                port.numberAccepts = 1
                accept_all()
                self._reactor.callLater(_PAUSE_SECONDS, resume)
            else:
                port.startReading()

        def start_reading() -> None:
            start()
            _wake_one(self._reactor, port)

        port.doRead = do_read
        port.startReading = start_reading

    def poll_shared(self) -> None:
        """Accept from the shared sockets now."""
        for port in self._shared:
            if port.connected and not port.disconnecting:
                port.doRead()

    def release(self, slot: int) -> None:
        """Stop accepting on a socket, whose backlog stays. A no-op for no socket."""
        port = self._ports.pop(slot, None)
        if port is not None:
            self.on_close(port)
            port.stopReading()
            port.connectionLost(None)

    def stopListening(self) -> Deferred[Any]:
        """Close all sockets in this process."""
        ports, self._ports = self._ports, {}
        closed = gatherResults(
            [maybeDeferred(port.stopListening) for port in ports.values()]
        )
        if self._listening:
            self._listening = False
            closed.addBoth(self._stop_factory)
        return closed

    def _stop_factory(self, result: object) -> object:
        self.factory.doStop()
        return result

    def getHost(self) -> IAddress:
        """Return the address of the first socket; of no port before it is there."""
        for port in self._ports.values():
            host: IAddress = port.getHost()
            return host
        return IPv4Address("TCP", "0.0.0.0", 0)


def _wake_one(reactor: Any, port: Any) -> None:
    """Let the kernel wake one of the workers that wait for a shared socket, not all.

    EPOLLEXCLUSIVE of epoll_ctl(2). The reactor has registered the socket without it.
    """
    poller = getattr(reactor, "_poller", None)
    if isinstance(poller, _EPoll) and _EXCLUSIVE:
        fd = port.fileno()
        poller.unregister(fd)
        poller.register(fd, select.EPOLLIN | _EXCLUSIVE)


class _SlotReactor(ListeningProxy):
    """A reactor whose ports get their sockets later."""

    def listen_later(self, factory: IProtocolFactory) -> SlotPort:
        port = SlotPort(factory, self._reactor)
        port.startListening()
        return port

    # The master has opened the socket with the other arguments.

    def listenTCP(
        self, port: int, factory: IProtocolFactory, *others: Any, **more: Any
    ) -> SlotPort:
        return self.listen_later(factory)

    def listenUNIX(
        self, address: str | bytes, factory: IProtocolFactory, *others: Any, **more: Any
    ) -> SlotPort:
        return self.listen_later(factory)


class _SlotTCPPort(tcp.Port):
    """A TCP port on a socket of the master.

    Args:
        adopted: the socket, which listens already.
        factory: as that of Twisted's port.
        reactor: the reactor.
    """

    # shutdown() would end the socket in every process that has it.
    _shouldShutdown = False  # noqa: N815

    def __init__(self, adopted: socket.socket, factory: Any, reactor: Any) -> None:
        interface, number = adopted.getsockname()[:2]
        super().__init__(number, factory, interface=interface, reactor=reactor)
        self._adopted = adopted

    def prepare(self) -> None:
        """Use the socket, without accepting yet."""
        as_port: Any = self
        as_port._realPortNumber = self._adopted.getsockname()[1]
        use_socket(self, self._adopted)

    def _logConnectionLostMsg(self) -> None:
        # The socket stays open in the master.
        pass


class _SlotUNIXPort(AdoptedUNIXPort):
    """A UNIX port on a socket of the master."""

    def getHost(self) -> UNIXAddress:
        """Return the address of the socket."""
        return UNIXAddress(self._adopted.getsockname() or None)

    def _logConnectionLostMsg(self) -> None:
        # As above.
        pass
