"""Limits on accepting: file descriptors in the process, and time in one turn.

A process without free descriptors cannot accept, and its listening socket stays
readable. A reactor that watches it would spin, or (as Twisted does) accept with a
spare descriptor only to close the connection. This module stops watching the
listening sockets while few descriptors are left: new connections wait in the
backlog, open ones are served, and the application can open its files.

Twisted accepts 100 connections and more in one turn of the reactor. Here a turn accepts
for one time slice: a burst of new connections does not delay the open ones.

A port that closes accepts its backlog first, because the kernel resets the connections
in it, unless the socket stays open in another process (`leaves_backlog`).

A service may also pause at `max_connections`, so that other processes with the same
socket accept instead.

It knows listening ports and descriptors. It must never know what is served.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.tcp import Port
from twisted.logger import Logger

from txgreenwsgi._native import lanes
from txgreenwsgi._switching.greenlets import SLICE_SECONDS
from txgreenwsgi.monitoring.log_limit import LogLimit

try:
    import resource
except ImportError:  # a platform without resource limits
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import (
        IDelayedCall,
        IListeningPort,
        IReactorTime,
    )

__all__ = [
    "LOG_SECONDS",
    "RESERVED_DESCRIPTORS",
    "RETRY_SECONDS",
    "AcceptThrottle",
    "descriptor_limit",
    "first_reserved",
]

_log = Logger()

#: Number of descriptors reserved for the application; at most 1/8 of the limit.
RESERVED_DESCRIPTORS = 64
lanes.lend(reserved_descriptors=RESERVED_DESCRIPTORS)

#: Interval between two attempts to resume.
RETRY_SECONDS = 0.1

#: Minimum interval between two log lines about a shortage.
LOG_SECONDS = 60.0

# Errors of accept() when the process, or the whole system, has no resources left.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


_NEVER = float("inf")

#: Maximum number of connections that a closing port accepts. The socket may be shared
#: with other processes, and new connections may never cease.
_BACKLOG = 4096


class AcceptThrottle:
    """The listening ports of one service, either accepting or paused.

    Call from the reactor greenlet.

    Args:
        reactor: the reactor of the ports.
        is_full: returns whether new connections have to wait until others close.

    Attributes:
        paused: True while no port accepts.
        leaves_backlog: whether a port that closes leaves its backlog to another
            process, which has the socket too.
    """

    leaves_backlog = False

    def __init__(
        self, reactor: IReactorTime, is_full: Callable[[], bool] | None = None
    ) -> None:
        self._reactor = reactor
        self._is_full = is_full
        self._ports: list[Port] = []
        self._call: IDelayedCall | None = None
        self._log_rate = LogLimit(reactor.seconds, LOG_SECONDS)
        self.paused = False

    def watch(self, port: IListeningPort) -> None:
        """Apply the limits to `port`. A no-op unless it has a socket."""
        if not isinstance(port, Port):
            return
        if not self._ports:
            self.paused = False
        as_port: Any = port
        listening: Any = _ListeningSocket(
            port.socket, self, self._reactor, as_port.doRead, port
        )
        port.socket = listening
        as_port.doRead = listening.accept_turn
        self._ports.append(port)
        if self.paused:
            port.stopReading()

    def forget_port(self, port: IListeningPort) -> None:
        """Stop watching one port. Call before it is closed."""
        self._ports = [each for each in self._ports if each is not port]

    def forget(self) -> None:
        """Stop watching. Call before the ports are closed."""
        self._ports.clear()
        self.paused = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def pause_if_full(self) -> bool:
        """Stop accepting while the connections have reached their limit.

        Returns:
            Whether accepting is paused. At the limit also for a port that accepts its
            backlog and closes: the socket outlives it in other processes.
        """
        if self._is_full is not None and self._is_full():
            if self._ports:
                self._pause()
            return True
        return self.paused

    def pause(self, reason: str) -> None:
        """Stop accepting until descriptors are free again."""
        # While a backlog is being accepted before its port closes, there is no port:
        # no descriptor is left for the rest of it.
        if not self._pause() or not self._ports:
            return
        if self._log_rate.may_log():
            _log.warn(
                "accepting is paused: file descriptors run short ({reason}, the limit "
                "is {limit}). New connections wait in the backlog until others close. "
                "Raise the limit (LimitNOFILE of systemd, ulimit -n) or set "
                "--max-connections",
                reason=reason,
                limit=descriptor_limit(),
            )

    def _pause(self) -> bool:
        """Stop accepting. Return False if that has happened already."""
        if self.paused:
            return False
        self.paused = True
        for port in self._ports:
            port.stopReading()
        if self._ports:
            self._call = self._reactor.callLater(RETRY_SECONDS, self._retry)
        return True

    def _retry(self) -> None:
        """Resume if the next descriptor is not a reserved one."""
        self._call = None
        if not self._ports:
            self.paused = False
            return
        if self._is_full is not None and self._is_full():
            self._call = self._reactor.callLater(RETRY_SECONDS, self._retry)
            return
        try:
            fd = os.dup(self._ports[0].fileno())
        except OSError:
            fd = descriptor_limit()
        else:
            os.close(fd)
        if fd >= first_reserved():
            self._call = self._reactor.callLater(RETRY_SECONDS, self._retry)
            return
        self.paused = False
        for port in self._ports:
            port.startReading()


@lanes.with_lanes
class _ListeningSocket(lanes.ListeningSocketState):
    """A proxy for a listening socket that accepts nothing while paused.

    In one turn of the reactor it accepts for one time slice. `accept_all` accepts what
    it finds, up to a limit of its own.
    """

    def __init__(
        self,
        listening: socket.socket,
        throttle: AcceptThrottle,
        reactor: IReactorTime,
        accept_all: Callable[[], object],
        port: Any,
    ) -> None:
        self._socket = listening
        self._throttle = throttle
        self._reactor = reactor
        self._end = _NEVER
        self._accept_all = accept_all
        self._port = port
        self._accepted = 0
        self._reserved = 0
        self._closing = False

    def accept_turn(self) -> None:
        """Accept for a time slice: `doRead` of the port."""
        self._end = self._reactor.seconds() + SLICE_SECONDS
        # Here, because the system call takes a twentieth of a connection.
        self._reserved = first_reserved()
        self._accept_all()

    def connect(self, channel: Any, fd: int, client: tuple[str, int]) -> None:
        """Make the transport of a connection that a lane has accepted.

        As the rest of `twisted.internet.tcp.Port.doRead`.

        Args:
            channel: the protocol.
            fd: the descriptor; owned by the transport from now on.
            client: the address of the peer.
        """
        listening, port = self._socket, self._port
        made = socket.socket(listening.family, listening.type, listening.proto, fd)
        number = port.sessionno
        port.sessionno = number + 1
        channel.makeConnection(
            port.transport(made, channel, client, port, number, port.reactor)
        )

    def shutdown(self, how: int) -> None:
        """Accept the backlog, then stop listening."""
        self._accept_backlog()
        self._socket.shutdown(how)

    def close(self) -> None:
        """Accept the backlog, then close the socket."""
        self._accept_backlog()
        self._socket.close()

    def _accept_backlog(self) -> None:
        """Accept the connections that the kernel has queued.

        As late as possible: the kernel resets those that come in between.
        """
        if self._closing or self._throttle.leaves_backlog:
            return
        self._closing = True
        self._end = _NEVER
        self._reserved = first_reserved()
        limit = self._accepted + _BACKLOG
        before = -1
        while before < self._accepted < limit:
            before = self._accepted
            self._accept_all()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection as `socket.accept` does.

        Raises:
            BlockingIOError: EAGAIN, while descriptors are short, or at the end of
                the time slice.
        """
        if self._reactor.seconds() > self._end:
            raise BlockingIOError(errno.EAGAIN, "the time slice is over")
        if self._throttle.pause_if_full():
            # Twisted accepts several connections in one call of doRead.
            raise BlockingIOError(errno.EAGAIN, "accepting is paused")
        try:
            accepted = self._socket.accept()
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            self._throttle.pause(str(error))
            raise BlockingIOError(errno.EAGAIN, "accepting is paused") from error
        self._accepted += 1
        self.check_descriptor(accepted[0].fileno())
        return accepted

    def check_descriptor(self, fd: int) -> None:
        """Pause if the descriptor of a new connection is a reserved one.

        Args:
            fd: the descriptor, which is the lowest that was free.
        """
        if fd >= self._reserved:
            self._throttle.pause(f"{fd} are open")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def descriptor_limit() -> int:
    """Return the maximum number of descriptors. It may change at any time."""
    if resource is None:
        return 1 << 30
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def first_reserved() -> int:
    """Return the lowest descriptor that connections must not use."""
    limit = descriptor_limit()
    return limit - min(RESERVED_DESCRIPTORS, limit // 8)
