"""A limit on the TLS handshakes in progress.

A connection in its handshake takes more memory than any other idle connection, and a
client gets there with a few bytes. Above the limit, the oldest handshake makes room for
the newest one: a client that completes its handshake within a few round trips is not
affected by others that do not.

This file must never know TLS itself, or the protocol above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from txgreenwsgi.monitoring.log_limit import LogLimit

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["LOG_SECONDS", "Handshakes"]

_log = Logger()

#: Minimum interval between two log lines about the limit.
LOG_SECONDS = 60.0


class Handshaking(Protocol):
    """A connection in its handshake."""

    def abort(self) -> None:
        """Close the connection at once."""


class Handshakes:
    """The connections of one site that have not completed their TLS handshake.

    Call from the reactor greenlet; no method parks.

    Args:
        limit: maximum number of handshakes in progress; 0 for no limit.
        reactor: its clock limits the rate of log lines.
    """

    def __init__(self, limit: int, reactor: IReactorTime) -> None:
        self._limit = limit
        # The oldest first.
        self._connections: dict[Handshaking, None] = {}
        self._log_rate = LogLimit(reactor.seconds, LOG_SECONDS)

    def __contains__(self, connection: Handshaking) -> bool:
        """Return whether the handshake of `connection` is in progress."""
        return connection in self._connections

    def begin(self, connection: Handshaking) -> None:
        """Add a connection. Above the limit, abort the oldest one."""
        self._connections[connection] = None
        if self._limit and len(self._connections) > self._limit:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            self._log_limit()
            oldest.abort()

    def end(self, connection: Handshaking) -> None:
        """Remove a connection whose handshake is complete, or that is lost."""
        self._connections.pop(connection, None)

    def _log_limit(self) -> None:
        if self._log_rate.may_log():
            _log.warn(
                "more than {limit} TLS handshakes in progress: closing the oldest for "
                "each new one. If the clients are genuine, raise --max-handshakes",
                limit=self._limit,
            )
