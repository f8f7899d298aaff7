"""Noticing that a client has gone while nothing is read from it.

A connection whose reading is paused is out of the reactor's sight: Twisted
unregisters it, and a client that hangs up is noticed at the next write, which
may never come. Here such sockets sit in an epoll object of their own that asks
for hang-ups only, and the reactor watches that one object.

Where the platform has no epoll, or the socket no descriptor, a client that goes
while reading is paused is noticed when it is read from or written to again.
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer

from .output import SocketOutput

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from .channel import Channel

__all__ = ["Hangups"]


@implementer(IReadDescriptor)
class Hangups:
    """The paused connections of one site.

    Args:
        reactor: watches for us, if it watches descriptors at all.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._channels: dict[int, Channel] = {}
        self._fds: dict[Channel, int] = {}
        self._epoll: Any = None

    def watch(self, channel: Channel) -> None:
        """Abort the connection of `channel` when its client has gone."""
        if not hasattr(select, "epoll") or not isinstance(channel.output, SocketOutput):
            return
        fd = channel.transport.fileno()
        if fd < 0 or not IReactorFDSet.providedBy(self._reactor):
            return
        if self._epoll is None:
            try:
                self._epoll = select.epoll()
            except OSError:
                return  # no descriptor is left for it: as where there is no epoll
        # One report is enough; it also keeps a half-closed client from being
        # reported without end.
        self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)
        if not self._channels:
            self._reactor.addReader(self)
        self._channels[fd] = channel
        self._fds[channel] = fd

    def forget(self, channel: Channel) -> None:
        """Its transport reads again, or is gone."""
        fd = self._fds.pop(channel, None)
        if fd is None:
            return
        del self._channels[fd]
        with suppress(OSError):  # closed: the kernel has dropped it
            self._epoll.unregister(fd)
        if not self._channels:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # What the reactor calls.

    def fileno(self) -> int:
        """The epoll object's own descriptor."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """What Twisted's log lines call us."""
        return "txgreenwsgi.hangups"

    def doRead(self) -> None:
        """Some clients have gone."""
        for fd, _events in self._epoll.poll(0):
            channel = self._channels.get(fd)
            if channel is not None:
                channel.hung_up()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is stopping."""
