"""Polling of plain connections with one nested epoll object.

The reactor watches the epoll object as a single reader, readable while any
connection is. So its work per event (a log context, several calls) is done once for
all ready connections, and each of them costs two calls less: a tenth of a short
request. Works under every reactor that watches descriptors.

A transport uses this object as its reactor. It also detects a disconnect while
reading is paused, which Twisted's reactors do not: they poll only descriptors that
they read or write.

If the platform has no epoll, or the socket no descriptor, transports stay with
their reactor, and a disconnect while reading is paused is detected at the next read
or write.

It knows transports. It must never know the meaning of their bytes.
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

from txgreenwsgi._native import lanes
from txgreenwsgi._parking.descriptors import kernel_epoll
from txgreenwsgi._switching.greenlets import SLICE_SECONDS, hub_of

from .ends import ServerAddresses

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi._switching.greenlets import Hub

    from .transports import PlainTransport

__all__ = ["DONE", "Sockets", "Watched"]

_log = Logger()

#: The reason of a clean close.
DONE = Failure(CONNECTION_DONE)
_LOST = Failure(CONNECTION_LOST)

#: Maximum number of ready connections that are served in one reactor turn; fewer if
#: they take longer than a time slice.
MAX_EVENTS = 256

_IN: int = getattr(select, "EPOLLIN", 0)
_OUT: int = getattr(select, "EPOLLOUT", 0)
_GONE: int = getattr(select, "EPOLLRDHUP", 0)
_ERROR: int = getattr(select, "EPOLLERR", 0)
_ENDED: int = getattr(select, "EPOLLHUP", 0) | _ERROR

# Until the epoll object is opened.
_NO_HUB = cast("Hub", None)

# The transports that read and write the socket without a layer in between.
_PLAIN = (Server, unix.Server)


class Watched(Protocol):
    """The protocol of a plain connection."""

    def doRead(self) -> BaseException | None:
        """Read from the socket; return the reason if the connection is lost."""

    def hung_up(self) -> None:
        """Handle a disconnect while reading is paused."""


@lanes.with_lanes
@implementer(IReadDescriptor)
class Sockets(lanes.SocketsState):
    """The poller of the plain connections of one site.

    Call from the reactor greenlet.

    Args:
        reactor: the reactor. It watches the epoll object if it is an IReactorFDSet.
        half_close: whether clients may close their sending side, so that only a
            reset counts as a disconnect while reading is paused.

    Attributes:
        addresses: the addresses of listening ports, for `ends_of`.
    """

    def __init__(self, reactor: IReactorTime, half_close: bool = False) -> None:
        self.addresses: ServerAddresses = ServerAddresses()
        self._reactor = cast("IReactorFDSet", reactor)
        self._hub = _NO_HUB
        self._usable = kernel_epoll is not None and IReactorFDSet.providedBy(reactor)
        self._epoll: Any = None
        # The events of a disconnect while reading is paused.
        self._gone = _ERROR if half_close else _GONE
        # By descriptor: the epoll event mask, the transport, the object that reads.
        # A channel that a lane has accepted makes its transport when it needs it.
        self._interest: dict[int, int] = {}
        self._transports: dict[int, PlainTransport] = {}
        self._readers: dict[int, Watched | PlainTransport] = {}
        # By descriptor: the channels that read the socket themselves.
        self._channels: dict[int, Watched] = {}
        # Events that the last turn had no time for, before those of the next poll.
        self._postponed: list[tuple[int, int]] = []

    def adopt(self, channel: Watched, transport: object) -> bool:
        """Poll the new connection of `channel`; return False if unsupported."""
        if type(transport) not in _PLAIN or not self._usable:
            return False
        if self._epoll is None and not self._open():
            return False
        plain: PlainTransport = transport  # type: ignore[assignment]
        fd = plain.fileno()
        if plain.reactor is not self:
            plain.stopReading()
            plain.reactor = self
            plain.startReading()
            if type(transport) is Server:
                plain.setTcpNoDelay(True)
        self._channels[fd] = channel
        self._readers[fd] = channel
        return True

    def serve_port(self, port: Any) -> None:
        """Poll the connections that `port` accepts here from the start."""
        if self._usable and isinstance(port, Port) and port.transport in _PLAIN:
            as_port: Any = port
            as_port.reactor = self
            # A request may begin while the port accepts, as while this object reads.
            as_port.logPrefix = self.logPrefix
            if port.transport is Server:
                # Head and body leave in one send, so there is nothing to coalesce.
                # On Linux, accepted sockets inherit the option.
                port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def forget(self, channel: Watched, fd: int) -> None:
        """Stop polling a lost connection, whose descriptor is closed."""
        if self._channels.get(fd) is channel:
            del self._channels[fd]
            self._watch(fd, 0)
            self._readers.pop(fd, None)

    def watch_hang_up(self, fd: int, notice: bool) -> None:
        """Start or stop calling `hung_up` of the channel.

        Start before reading is paused, and stop after it is resumed.
        """
        interest = self._interest.get(fd, 0)
        if interest:
            gone = self._gone
            self._watch(fd, interest | gone if notice else interest & ~gone)

    def _open(self) -> bool:
        assert kernel_epoll is not None, "usable"
        try:
            # Not the green one of a patched `select`, which costs several calls a turn.
            self._epoll = kernel_epoll()
        except OSError:
            return False  # out of descriptors: fall back as without epoll
        self._hub = hub_of(cast("IReactorTime", self._reactor))
        self._reactor.addReader(self)
        return True

    def _close(self) -> None:
        epoll, self._epoll = self._epoll, None
        self._reactor.removeReader(self)
        epoll.close()

    def _watch(self, fd: int, interest: int) -> None:
        """Set the event mask of a descriptor; 0 unregisters it."""
        before = self._interest.get(fd, 0)
        if interest == before:
            return
        if self._postponed:
            # The next poll reports the descriptor again, if it is still ready.
            self._postponed = [event for event in self._postponed if event[0] != fd]
        if not before:
            self._epoll.register(fd, interest)
            self._interest[fd] = interest
        elif interest:
            self._interest[fd] = interest
            self._epoll.modify(fd, interest)
        else:
            del self._interest[fd]
            self._transports.pop(fd, None)
            if fd not in self._channels:
                del self._readers[fd]
            with suppress(OSError):  # closed: the kernel has unregistered it
                self._epoll.unregister(fd)
            if not self._interest:
                self._close()

    def _add(self, transport: PlainTransport, interest: int) -> bool:
        """Add to the event mask; return False if the reactor must watch it."""
        if self._epoll is None and not self._open():
            transport.reactor = self._reactor
            return False
        fd = transport.fileno()
        self._watch(fd, self._interest.get(fd, 0) | interest)
        if fd not in self._transports:
            self._transports[fd] = transport
            if fd not in self._readers:
                self._readers[fd] = transport
        return True

    def _remove(self, transport: PlainTransport, interest: int) -> None:
        fd = transport.fileno()
        before = self._interest.get(fd, 0)
        if before & interest:
            self._watch(fd, before & ~interest)

    # The reactor interface for transports and ports.

    def addReader(self, transport: PlainTransport | Port) -> None:
        """Start reading from a connection or accepting from a port."""
        if isinstance(transport, Port) or not self._add(transport, _IN):
            self._reactor.addReader(transport)  # type: ignore[arg-type]

    def removeReader(self, transport: PlainTransport | Port) -> None:
        """Stop reading from a connection or accepting from a port."""
        if isinstance(transport, Port):
            self._reactor.removeReader(transport)
        else:
            self._remove(transport, _IN)

    def addWriter(self, transport: PlainTransport) -> None:
        """Start reporting that a connection is writable."""
        if not self._add(transport, _OUT):
            self._reactor.addWriter(transport)  # type: ignore[arg-type]

    def removeWriter(self, transport: PlainTransport | Port) -> None:
        """Stop reporting that a connection is writable."""
        if not isinstance(transport, Port):  # a port never writes
            self._remove(transport, _OUT)

    def __getattr__(self, name: str) -> Any:
        # The rest of the reactor: clock, threads and so on.
        return getattr(self._reactor, name)

    # Called by the reactor.

    def fileno(self) -> int:
        """Return the descriptor of the epoll object; -1 if it is closed."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Return the name for Twisted's log lines."""
        return "txgreenwsgi"

    def doRead(self) -> None:
        """Serve the ready connections, for one time slice at most."""
        ready, self._postponed = self._postponed, []
        if not ready:
            ready = self._epoll.poll(0, MAX_EVENTS)
        shared = len(ready) > 1
        hub = self._hub
        end = hub.share_slice(len(ready)) if shared else 0.0
        seconds = hub.seconds
        ended_at = hub.ended_at
        readers = self._readers
        transports = self._transports
        remaining = iter(ready)
        for fd, events in remaining:
            if events == _IN:
                reader = readers.get(fd)
                if reader is not None:  # else an earlier event closed it
                    # Before the call, which may close the descriptor.
                    transport = transports.get(fd)
                    try:
                        why = reader.doRead()
                    except BaseException:
                        why = _raised()
                    if why is not None:
                        self._lose(
                            transport or self._transport_of(fd),
                            why,
                            fd not in self._channels,
                        )
            else:
                self._handle_events(fd, events)
            if not shared:
                continue
            # If a task has ended, the hub has just read the clock.
            now = hub.ended_at
            if now == ended_at:
                now = seconds()
            else:
                ended_at = now
            if now > end:
                # Ready still, so the reactor calls again in its next turn. A connection
                # that is closed is not: a new one may get its descriptor.
                self._postponed = [
                    event for event in remaining if event[0] in self._interest
                ]
                break
        hub.slice_seconds = SLICE_SECONDS

    def _handle_events(self, fd: int, events: int) -> None:
        """Handle the events of one connection as Twisted's reactors do."""
        interest = self._interest.get(fd, 0)
        if not interest:
            return  # an earlier event closed it
        transport = self._transport_of(fd)
        half = fd not in self._channels
        why: BaseException | int | None = None
        try:
            if events & self._gone & interest:
                self._channels[fd].hung_up()
                return
            if events & _ENDED and not events & _IN:
                why = CONNECTION_DONE if interest & _IN else CONNECTION_LOST
            else:
                if events & _IN & interest:
                    why = self._readers[fd].doRead()
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
        """Report the loss of a connection, unless it was reported before.

        Args:
            transport: the transport of the connection.
            why: the reason that reading or writing returned.
            half: whether a clean close is only the end of the input, so that the
                protocol may support a half-closed connection.
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
            transport.connectionLost(reason)  # stops reading and writing

    def _transport_of(self, fd: int) -> PlainTransport:
        """Return the transport of a descriptor that is watched."""
        transport = self._transports.get(fd)
        if transport is None:
            channel: Any = self._channels[fd]
            transport = channel.transport
        return transport

    def connectionLost(self, reason: Failure) -> None:
        """Lose all connections when the reactor stops."""
        for transport in [self._transport_of(fd) for fd in list(self._interest)]:
            transport.connectionLost(reason)


lanes.lend(sockets=globals(), tcp_server=Server)


@lanes.lent
def _raised() -> BaseException | None:
    """Log and return the current exception, which ends only its connection."""
    _log.failure("a connection failed")
    return sys.exc_info()[1]
