"""Stopping to accept while the process is short of file descriptors.

A process that has none left cannot accept, and its listening socket stays readable:
a reactor that is told of it turns without rest, or (Twisted's way) accepts with a
spare descriptor, only to close. Here the listening sockets are put aside while few
descriptors are left. Who connects meanwhile waits in the backlog, who is connected
is served, and the application can open its files.

It knows listening ports and descriptors. It must never know what is served.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.tcp import Port
from twisted.logger import Logger

try:
    import resource
except ImportError:  # a platform without limits on them
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import socket

    from twisted.internet.interfaces import IDelayedCall, IListeningPort

__all__ = ["Accepting"]

_log = Logger()

#: So many descriptors are left to the application, at most an eighth of all.
_SPARE = 64

#: How often it is tried again.
_TRY_SECONDS = 0.1

#: A shortage that comes and goes is logged no more often than this.
_LOG_SECONDS = 60.0

# What accept() says when this process, or the whole system, has run out.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Accepting:
    """The listening ports of one service: accepting, or put aside.

    Call from the reactor greenlet.

    Args:
        reactor: an IReactorTime.

    Attributes:
        paused: whether they are put aside.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ports: list[Port] = []
        self._call: IDelayedCall | None = None
        self._logged: float | None = None
        self.paused = False

    def watch(self, port: IListeningPort) -> None:
        """Have `port` put aside when descriptors run short, if it is one of sockets."""
        if not isinstance(port, Port):
            return
        listening: Any = _ListeningSocket(port.socket, self)
        port.socket = listening
        self._ports.append(port)
        if self.paused:
            port.stopReading()

    def forget(self) -> None:
        """The ports are about to be closed."""
        self._ports.clear()
        self.paused = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def accepted(self, fd: int) -> None:
        """A connection has the descriptor `fd`, the lowest that was free."""
        if fd >= _most():
            self.pause(f"{fd} are open")

    def pause(self, reason: str) -> None:
        """Put the ports aside until there are descriptors again."""
        if self.paused:
            return
        self.paused = True
        for port in self._ports:
            port.stopReading()
        self._call = self._reactor.callLater(_TRY_SECONDS, self._try)
        now = self._reactor.seconds()
        if self._logged is None or now - self._logged >= _LOG_SECONDS:
            self._logged = now
            _log.warn(
                "file descriptors run short ({reason}, the limit is {limit}): new "
                "connections wait until others are closed; raise the limit "
                "(LimitNOFILE of systemd, ulimit -n) or give --max-connections",
                reason=reason,
                limit=_limit(),
            )

    def _try(self) -> None:
        """Go on if the next descriptor would not be one of the last."""
        self._call = None
        try:
            fd = os.dup(self._ports[0].fileno())
        except OSError:
            fd = _limit()
        else:
            os.close(fd)
        if fd >= _most():
            self._call = self._reactor.callLater(_TRY_SECONDS, self._try)
            return
        self.paused = False
        for port in self._ports:
            port.startReading()


class _ListeningSocket:
    """A port's socket that has nobody to accept while its port is put aside."""

    def __init__(self, listening: socket.socket, accepting: Accepting) -> None:
        self._socket = listening
        self._accepting = accepting

    def accept(self) -> tuple[socket.socket, Any]:
        """What `socket.accept` does; EAGAIN when descriptors are short."""
        if self._accepting.paused:
            # Twisted accepts several in one go.
            raise BlockingIOError(errno.EAGAIN, "accepting is paused")
        try:
            accepted = self._socket.accept()
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            self._accepting.pause(str(error))
            raise BlockingIOError(errno.EAGAIN, "accepting is paused") from error
        self._accepting.accepted(accepted[0].fileno())
        return accepted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def _limit() -> int:
    """How many descriptors this process may have; it can change at any time."""
    if resource is None:
        return 1 << 30
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def _most() -> int:
    """The first descriptor that is not for connections."""
    limit = _limit()
    return limit - min(_SPARE, limit // 8)
