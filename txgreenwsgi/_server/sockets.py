"""Plain connections, watched by an epoll object of our own.

To the reactor the object is one reader, readable while any connection is. So what
it does for each event (a log context, several calls) it does once for all
connections that are ready, and each of them costs two calls less: a tenth of a
short request. Works under every reactor that watches descriptors.

To a transport this is the reactor that it registers itself with. Besides, it
notices a client that goes while its connection is not read from: Twisted's
reactors do not look at what they neither read nor write.

Where the platform has no epoll, or the socket no descriptor, transports stay with
their reactor, and a client that goes while reading is paused is noticed when it is
read from or written to again.

It knows transports. It must never know what their bytes mean.
"""

from __future__ import annotations

import select
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet import unix
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Port, Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .ends import ServerAddresses

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime, IWriteDescriptor

    from .transports import PlainTransport

__all__ = ["DONE", "Sockets", "Watched"]

_log = Logger()

#: Why a connection is lost that was closed in good order.
DONE = Failure(CONNECTION_DONE)
_LOST = Failure(CONNECTION_LOST)

#: Maximum number of ready connections that are served in one turn of the reactor.
MAX_EVENTS = 256

_IN: int = getattr(select, "EPOLLIN", 0)
_OUT: int = getattr(select, "EPOLLOUT", 0)
_GONE: int = getattr(select, "EPOLLRDHUP", 0)
_ENDED: int = getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)

# The transports whose reading and writing is known to be nothing but a socket's.
_PLAIN = (Server, unix.Server)


class Watched(Protocol):
    """The protocol of a plain connection."""

    def readable(self) -> BaseException | None:
        """Read from the socket; return the reason if the connection is lost."""

    def hung_up(self) -> None:
        """Take note that the client left while reading was paused."""


@implementer(IReadDescriptor)
class Sockets:
    """The plain connections of one site.

    Call from the reactor greenlet.

    Args:
        reactor: watches the epoll object, if it watches descriptors at all.

    Attributes:
        addresses: the addresses of listening ports, for `ends_of`.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.addresses: ServerAddresses = ServerAddresses()
        self._reactor = cast("IReactorFDSet", reactor)
        self._usable = hasattr(select, "epoll") and IReactorFDSet.providedBy(reactor)
        self._epoll: Any = None
        # By descriptor: what is watched for, for whom, and what reads.
        self._interest: dict[int, int] = {}
        self._transports: dict[int, PlainTransport] = {}
        self._readers: dict[int, Callable[[], BaseException | None]] = {}
        # Those that have no layer between them and the socket.
        self._channels: dict[int, Watched] = {}

    def adopt(self, channel: Watched, transport: object) -> bool:
        """Watch the connection of `channel`, which has just been made; if it can be."""
        if type(transport) not in _PLAIN or not self._usable:
            return False
        if self._epoll is None and not self._open():
            return False
        plain = cast("PlainTransport", transport)
        fd = plain.fileno()
        if plain.reactor is not self:
            plain.stopReading()
            plain.reactor = self
            plain.startReading()
            if type(transport) is Server:
                plain.setTcpNoDelay(True)
        self._channels[fd] = channel
        self._readers[fd] = channel.readable
        return True

    def serve_port(self, port: Any) -> None:
        """Have the connections that `port` accepts begin here, and not move here."""
        if self._usable and isinstance(port, Port) and port.transport in _PLAIN:
            as_port: Any = port
            as_port.reactor = self
            if port.transport is Server:
                # Head and body leave in one send, so there is nothing to gather.
                # Linux has what is accepted inherit it.
                port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def forget(self, channel: Watched, fd: int) -> None:
        """The connection is lost, and its descriptor closed."""
        if self._channels.get(fd) is channel:
            del self._channels[fd]
            self._watch(fd, 0)
            self._readers.pop(fd, None)

    def notice_leaving(self, fd: int, notice: bool) -> None:
        """Tell, or no longer tell, the channel that its client has gone.

        Begin before reading is paused, and end after it is resumed.
        """
        interest = self._interest.get(fd, 0)
        if interest:
            self._watch(fd, interest | _GONE if notice else interest & ~_GONE)

    def _open(self) -> bool:
        try:
            self._epoll = select.epoll()
        except OSError:
            return False  # no descriptor is left for it: as where there is no epoll
        self._reactor.addReader(self)
        return True

    def _close(self) -> None:
        epoll, self._epoll = self._epoll, None
        self._reactor.removeReader(self)
        epoll.close()

    def _watch(self, fd: int, interest: int) -> None:
        """Have the kernel tell of `interest` from now on; 0 is nothing."""
        before = self._interest.get(fd, 0)
        if interest == before:
            return
        if not before:
            self._epoll.register(fd, interest)
            self._interest[fd] = interest
        elif interest:
            self._interest[fd] = interest
            self._epoll.modify(fd, interest)
        else:
            del self._interest[fd]
            del self._transports[fd]
            if fd not in self._channels:
                del self._readers[fd]
            with suppress(OSError):  # closed: the kernel has dropped it
                self._epoll.unregister(fd)
            if not self._interest:
                self._close()

    def _add(self, transport: PlainTransport, interest: int) -> bool:
        """Watch it for more; False where it stays with its reactor from now on."""
        if self._epoll is None and not self._open():
            transport.reactor = self._reactor
            return False
        fd = transport.fileno()
        self._watch(fd, self._interest.get(fd, 0) | interest)
        if fd not in self._transports:
            self._transports[fd] = transport
            if fd not in self._readers:
                self._readers[fd] = transport.doRead
        return True

    def _remove(self, transport: PlainTransport, interest: int) -> None:
        fd = transport.fileno()
        before = self._interest.get(fd, 0)
        if before & interest:
            self._watch(fd, before & ~interest)

    # What transports and ports take for their reactor.

    def addReader(self, transport: IReadDescriptor) -> None:
        """Read from a connection, or accept from a port."""
        if isinstance(transport, Port) or not self._add(
            cast("PlainTransport", transport), _IN
        ):
            self._reactor.addReader(transport)

    def removeReader(self, transport: IReadDescriptor) -> None:
        """Do not read from it any more."""
        if isinstance(transport, Port):
            self._reactor.removeReader(transport)
        else:
            self._remove(cast("PlainTransport", transport), _IN)

    def addWriter(self, transport: IWriteDescriptor) -> None:
        """Tell when it takes more."""
        if not self._add(cast("PlainTransport", transport), _OUT):
            self._reactor.addWriter(transport)

    def removeWriter(self, transport: IWriteDescriptor) -> None:
        """Do not tell any more."""
        if not isinstance(transport, Port):  # which never writes
            self._remove(cast("PlainTransport", transport), _OUT)

    def __getattr__(self, name: str) -> Any:
        # Its clock, its threads and all else.
        return getattr(self._reactor, name)

    # What the reactor calls.

    def fileno(self) -> int:
        """The epoll object's own descriptor."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """What Twisted's log lines call us."""
        return "txgreenwsgi"

    def doRead(self) -> None:
        """Some connections are ready."""
        readers = self._readers
        transports = self._transports
        for fd, events in self._epoll.poll(0, MAX_EVENTS):
            if events == _IN:
                reader = readers.get(fd)
                if reader is not None:  # else it was closed by one before it
                    transport = transports.get(fd)
                    try:
                        why = reader()
                    except BaseException:
                        why = _raised()
                    if why is not None and transport is not None:
                        self._lose(transport, why, fd not in self._channels)
            else:
                self._see_to(fd, events)

    def _see_to(self, fd: int, events: int) -> None:
        """Do what the kernel tells of one connection, as Twisted's reactors do."""
        interest = self._interest.get(fd, 0)
        if not interest:
            return  # it was closed by one before it
        transport = self._transports[fd]
        half = fd not in self._channels
        why: BaseException | int | None = None
        try:
            if events & _GONE & interest:
                self._channels[fd].hung_up()
                return
            if events & _ENDED and not events & _IN:
                why = CONNECTION_DONE if interest & _IN else CONNECTION_LOST
            else:
                if events & _IN & interest:
                    why = self._readers[fd]()
                if why is None and events & _OUT and self._interest.get(fd, 0) & _OUT:
                    half = False
                    why = transport.doWrite()
        except BaseException:
            why = _raised()
        if why is not None:
            self._lose(transport, why, half)

    def _lose(
        self, transport: PlainTransport, why: BaseException | int | None, half: bool
    ) -> None:
        """End a connection, which may be watched for nothing any more.

        Args:
            transport: of the connection.
            why: what reading or writing gave for a reason.
            half: whether an end in good order was the end of what is read, which
                a protocol may outlive.
        """
        if transport.disconnected:
            return
        if why is CONNECTION_DONE:
            reason = DONE
        elif why is CONNECTION_LOST:
            reason = _LOST
        else:
            reason = Failure(why)
        if why is CONNECTION_DONE and half:
            transport.stopReading()
            transport.readConnectionLost(reason)
        else:
            transport.connectionLost(reason)  # which stops reading and writing

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has stopped: so have all connections."""
        for transport in list(self._transports.values()):
            transport.connectionLost(reason)


def _raised() -> BaseException | None:
    """Log what is being handled; it ends its connection, and no other."""
    _log.failure("a connection failed")
    return sys.exc_info()[1]
