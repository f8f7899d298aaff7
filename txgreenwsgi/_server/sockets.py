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
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import unix
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Port, Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .channel import Channel

__all__ = ["DONE", "Sockets"]

_log = Logger(namespace="txgreenwsgi")

#: Why a connection is lost that was closed in good order.
DONE = Failure(CONNECTION_DONE)
_LOST = Failure(CONNECTION_LOST)

#: So many ready connections are seen to before the reactor has its turn.
_MOST_EVENTS = 256

_HAS_EPOLL = hasattr(select, "epoll")
_IN: int = getattr(select, "EPOLLIN", 0)
_OUT: int = getattr(select, "EPOLLOUT", 0)
_GONE: int = getattr(select, "EPOLLRDHUP", 0)
_ENDED: int = getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)

# The transports whose reading and writing is known to be nothing but a socket's.
_PLAIN = (Server, unix.Server)


@implementer(IReadDescriptor)
class Sockets:
    """The plain connections of one site.

    Call from the reactor greenlet.

    Args:
        reactor: watches for us, if it watches descriptors at all.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._usable = _HAS_EPOLL and IReactorFDSet.providedBy(reactor)
        self._epoll: Any = None
        # By descriptor: what is watched for, whose it is, what reads.
        self._interest: dict[int, int] = {}
        self._channels: dict[int, Channel] = {}
        self._readers: dict[int, Callable[[], Any]] = {}

    def adopt(self, channel: Channel, transport: Any) -> bool:
        """Watch the connection of `channel`, which has just been made; if it can be."""
        if type(transport) not in _PLAIN or not self._usable:
            return False
        fd = transport.fileno()
        if self._epoll is None and not self._open():
            return False
        self._channels[fd] = channel
        self._readers[fd] = channel.readable
        if transport.reactor is not self:
            transport.stopReading()
            transport.reactor = self
            self._watch(fd, _IN)
        return True

    def serve_port(self, port: Any) -> None:
        """Have the connections that `port` accepts begin here, and not move here."""
        if self._usable and isinstance(port, Port) and port.transport in _PLAIN:
            port.reactor = self

    def forget(self, channel: Channel, fd: int) -> None:
        """The connection is lost, and its descriptor closed."""
        if self._channels.get(fd) is channel:
            self._watch(fd, 0)
            del self._channels[fd]
            del self._readers[fd]
            if not self._channels and not self._interest:
                self._close()

    def notice_leaving(self, fd: int, notice: bool) -> None:
        """Tell, or no longer tell, the channel that its client has gone."""
        interest = self._interest.get(fd, 0)
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
            self._interest[fd] = interest
            self._epoll.register(fd, interest)
        elif interest:
            self._interest[fd] = interest
            self._epoll.modify(fd, interest)
        else:
            del self._interest[fd]
            with suppress(OSError):  # closed: the kernel has dropped it
                self._epoll.unregister(fd)

    # What transports and ports take for their reactor.

    def addReader(self, transport: Any) -> None:
        """Read from a connection, or accept from a port."""
        if isinstance(transport, Port):
            self._reactor.addReader(transport)
            return
        fd = transport.fileno()
        if self._epoll is None and not self._open():
            # As it would be without us, from the first to the last.
            transport.reactor = self._reactor
            self._reactor.addReader(transport)
            return
        self._watch(fd, self._interest.get(fd, 0) | _IN)

    def removeReader(self, transport: Any) -> None:
        """Do not read from it any more."""
        if isinstance(transport, Port):
            self._reactor.removeReader(transport)
            return
        fd = transport.fileno()
        self._watch(fd, self._interest.get(fd, 0) & ~_IN)

    def addWriter(self, transport: Any) -> None:
        """Tell when it takes more."""
        fd = transport.fileno()
        self._watch(fd, self._interest.get(fd, 0) | _OUT)

    def removeWriter(self, transport: Any) -> None:
        """Do not tell any more."""
        if isinstance(transport, Port):
            return  # it never writes
        fd = transport.fileno()
        self._watch(fd, self._interest.get(fd, 0) & ~_OUT)

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
        for fd, events in self._epoll.poll(0, _MOST_EVENTS):
            if events == _IN:
                reader = readers.get(fd)
                if reader is not None:  # else it was closed by one before it
                    try:
                        why = reader()
                    except BaseException:
                        why = _raised()
                    if why is not None:
                        self._lose(fd, why)
            else:
                self._see_to(fd, events)

    def _see_to(self, fd: int, events: int) -> None:
        """Do what the kernel tells of one connection, as Twisted's reactors do."""
        channel = self._channels.get(fd)
        interest = self._interest.get(fd, 0)
        if channel is None or not interest:
            return
        transport = channel.transport
        why: Any = None
        try:
            if events & _GONE & interest:
                channel.hung_up()
                return
            if events & _ENDED and not events & _IN:
                why = CONNECTION_DONE if interest & _IN else CONNECTION_LOST
            else:
                if events & _IN & interest:
                    why = self._readers[fd]()
                if why is None and events & _OUT and self._interest.get(fd, 0) & _OUT:
                    why = transport.doWrite()
        except BaseException:
            why = _raised()
        if why is not None:
            self._lose(fd, why)

    def _lose(self, fd: int, why: Any) -> None:
        channel = self._channels.get(fd)
        if channel is None or channel.transport is None:
            return
        transport = channel.transport
        if why is CONNECTION_DONE:
            reason = DONE
        elif why is CONNECTION_LOST:
            reason = _LOST
        else:
            reason = Failure(why)
        transport.stopReading()
        transport.stopWriting()
        transport.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has stopped: so have all connections."""
        for channel in list(self._channels.values()):
            if channel.transport is not None:
                channel.transport.connectionLost(reason)


def _raised() -> BaseException | None:
    """Log what is being handled; it ends its connection, and no other."""
    _log.failure("a connection failed")
    return sys.exc_info()[1]
