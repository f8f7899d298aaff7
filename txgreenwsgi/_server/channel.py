"""The parts that the channels of all HTTP versions share.

Both ends of a connection, refused requests, pauses of reading, steps of a close.

This file owns a transport. It must never know a version of HTTP.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final, Protocol, cast

from twisted.logger import Logger

from txgreenwsgi._http.writer import STATUSES
from txgreenwsgi._serving.plain_response import plain_response
from txgreenwsgi.monitoring.records import ExchangeRecord

from .ends import ends_of
from .output import (
    UNKNOWN,
    has_unread_bytes,
    shows_progress,
    tcp_connection,
    unaccepted_bytes,
)

if TYPE_CHECKING:
    from txgreenwsgi._http.head import Refusal
    from txgreenwsgi._http.writer import ResponseHead
    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._serving.stream import Ends

    from .proxied_address import ProxiedAddress
    from .sockets import Sockets
    from .transports import PlainTransport

__all__ = [
    "CLOSED",
    "CLOSE_SECONDS",
    "DRAIN_BYTES",
    "DRAIN_CLOSE_SECONDS",
    "LINGERING",
    "NO_ENDS",
    "NO_TRANSPORT",
    "READ_BYTES",
    "Channel",
]

_log = Logger()

#: The last byte was sent; further input is read and discarded.
LINGERING: Final = "lingering"
#: The connection is lost or was aborted.
CLOSED: Final = "closed"

#: Time for a connection to close, and for the rest of a request body to arrive.
CLOSE_SECONDS: Final = 5.0

#: Time for the client to close a connection that a shutdown has half-closed.
DRAIN_CLOSE_SECONDS: Final = 1.0

#: Maximum size of the rest of a request body that is read and dropped after the
#: response. With a longer one the connection is closed, or the stream is reset, which
#: clients may take for a failure.
DRAIN_BYTES: Final = 256 * 1024

#: Maximum input that a lingering connection discards before it is aborted. Many
#: clients send a whole upload before they read the response.
_LINGER_BYTES: Final = 16 * 1024 * 1024

#: Size of a read from a socket.
READ_BYTES: Final = 65536

NO_ENDS: Final = cast("Ends", None)
# A PlainTransport where `_fd` is valid; any StreamTransport otherwise.
NO_TRANSPORT: Final = cast("PlainTransport", None)

# The channels declare the slots: one of them has a compiled base class.
_NO_SLOTS: tuple[str, ...] = ()


class _Detachable(Protocol):
    """The send side of a transport."""

    def detach(self) -> None:
        """Release the transport so that it can close behind the bytes written."""


class Channel:
    """The base class of the Twisted protocol of one connection.

    Attributes:
        state: a state of the channel's table; `LINGERING` and `CLOSED` are in each.
        server: the application's server.
        transport: the transport; None before the connection is made and after it is
            lost.
        reading_paused: whether reading from the transport is paused.
    """

    __slots__ = _NO_SLOTS

    state: str
    server: ApplicationServer
    transport: PlainTransport
    reading_paused: bool
    _sockets: Sockets
    _proxied: ProxiedAddress | None
    # The descriptor under which `_sockets` watches the connection; -1 where the reactor
    # watches the transport.
    _fd: int
    # In LINGERING and CLOSED, the time at which to abort the connection.
    _time: float
    _discarded: int
    # The result of `unaccepted_bytes` at the last check of a wait for the client;
    # UNKNOWN before the first check of one.
    _unaccepted: int

    # Called by the transport.

    def connectionMade(self) -> None:
        """No-op, required by IProtocol: `makeConnection` does the work."""

    def logPrefix(self) -> str:
        """Return the name of this protocol in Twisted's log lines."""
        return "txgreenwsgi"

    def doRead(self) -> BaseException | None:
        """Read from the socket; return the reason if the connection is lost."""
        raise NotImplementedError

    def hung_up(self) -> None:
        """Handle a disconnect while reading is paused."""
        self.abort()

    # Requests.

    def _both_ends(self) -> Ends:
        """Return both ends of the connection."""
        url_scheme = self.server.settings.url_scheme
        ends = ends_of(self.transport, url_scheme, self._sockets.addresses)
        return ends if self._proxied is None else self._proxied.ends(ends, url_scheme)

    def _record_refusal(
        self, refusal: Refusal, ends: Ends
    ) -> tuple[ResponseHead, bytes]:
        """Log and record an invalid request; return its response."""
        status = STATUSES[refusal.status]
        _log.info(
            "request refused: {address}: {status}, {reason}",
            address=ends.remote_addr or "a UNIX socket",
            status=refusal.status,
            reason=refusal.reason,
        )
        head, body = plain_response(status, refusal.reason)
        if self.server.metrics is not None:
            self.server.metrics.refused(head.code, len(body))
        table = self.server.table
        if table.observers:
            table.observe(
                ExchangeRecord(
                    remote_addr=ends.remote_addr,
                    remote_port=ends.remote_port,
                    started=time(),
                    duration=0.0,
                    method="",
                    target="",
                    version="",
                    status=head.code,
                    bytes_sent=len(body),
                    request_id=table.next_id(),
                    referer="",
                    user_agent="",
                    outcome="refused",
                )
            )
        return head, body

    # Reading.

    def _pause_reading(self) -> None:
        """Stop reading, but notice a disconnect."""
        self.reading_paused = True
        transport = self.transport  # a lane may have left it to be made here
        if self._fd >= 0:
            self._sockets.watch_hang_up(self._fd, True)
        transport.pauseProducing()

    def _resume_reading(self) -> None:
        self.reading_paused = False
        if self.transport is not NO_TRANSPORT:
            self.transport.resumeProducing()
            if self._fd >= 0:
                self._sockets.watch_hang_up(self._fd, False)

    def _discard(self, data: bytes) -> None:
        """Discard input of a lingering connection.

        Unread bytes in the kernel would reset the connection on close, and the client
        would lose the last response.
        """
        self._discarded += len(data)
        if self._discarded > _LINGER_BYTES:
            self.abort()

    def read_now(self) -> bool:
        """Deliver input that the reactor has not read; return False if there is none.

        Call from the reactor greenlet, at a deadline of the client. One read is enough:
        the rest, if any, came later.
        """
        below = tcp_connection(self.transport)
        if below is None or self.reading_paused or not has_unread_bytes(self.transport):
            return False
        # The result is ignored: the reactor reports a lost connection again.
        if self._fd >= 0:
            self.doRead()
        else:
            below.doRead()
        return True

    # Sending.

    def _client_accepts(self) -> bool:
        """Return whether the client has accepted bytes since the last call.

        For limits on the time without progress: call at each check of a wait, and set
        `_unaccepted` to `UNKNOWN` between two waits.
        """
        before, self._unaccepted = self._unaccepted, unaccepted_bytes(self.transport)
        return shows_progress(before, self._unaccepted)

    # Closing.

    def abort(self) -> None:
        """Abort the connection, so that the client detects the truncation."""
        raise NotImplementedError

    def _close_sending(self, output: _Detachable, plain: bool) -> None:
        """Close the sending side behind the bytes written.

        Args:
            output: the send side.
            plain: whether the transport is a socket without a layer above.
        """
        output.detach()
        if plain:
            self.transport.loseWriteConnection()
        else:
            # TLS sends close_notify and reads until it receives the client's.
            self.transport.loseConnection()

    def _check_closing(self, now: float, flush_seconds: float) -> None:
        """Apply the deadline of a connection that is LINGERING or CLOSED.

        Args:
            now: the reactor's clock.
            flush_seconds: the time for the transport to send what it buffers.
        """
        if now >= self._time:
            self._stop_lingering(now, flush_seconds)
        elif self._unaccepted == UNKNOWN and self.state is LINGERING:
            # The first check, from which the progress of the client counts.
            self._unaccepted = unaccepted_bytes(self.transport)
            if self._unaccepted and not self.server.shutdown.stopping:
                self._time = max(self._time, now + CLOSE_SECONDS)

    def _stop_lingering(self, now: float, flush_seconds: float) -> None:
        """Close a connection whose client did not close it, unless it accepts bytes."""
        stopping = self.server.shutdown.stopping
        below = tcp_connection(self.transport)
        if self.state is not LINGERING:
            self.abort()
        elif not stopping and self._client_accepts() and self._unaccepted:
            # An abort would discard the rest of the response.
            self._time = now + CLOSE_SECONDS
        elif stopping and below is not None and not below.disconnecting:
            # The same, but the process does not wait: its kernel sends the rest.
            self._time = now + flush_seconds
            below.loseConnection()
        else:
            self.abort()

    def _abort_transport(self, output: _Detachable) -> None:
        """Abort the transport; `check` tries again if it is not lost in time."""
        self._time = self.server.hub.seconds() + CLOSE_SECONDS
        if self.transport is not NO_TRANSPORT:
            output.detach()
            if self.reading_paused and self._fd >= 0:
                self._sockets.watch_hang_up(self._fd, False)
            self.transport.abortConnection()
