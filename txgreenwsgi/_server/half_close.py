"""Connections whose client may close its sending side and wait for the response.

The kernel reports the end of file for such a client and for one that has left
(`docs/decisions/0005-end-of-file-is-a-disconnect.md`). Under `half_close="serve"` the
end of file ends only the input: the requests received before it are answered.

This file owns a transport. It must never know the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE
from zope.interface import implementer

from .h1_channel import CLOSED, SERVING, H1Channel
from .sockets import DONE

if TYPE_CHECKING:
    from txgreenwsgi._http.parser import HeadLimits
    from txgreenwsgi._serving.application_server import ApplicationServer
    from txgreenwsgi._serving.exchange import Exchange

    from .handshakes import Handshakes
    from .proxied_address import ProxiedAddress
    from .sockets import Sockets

__all__ = ["HalfCloseChannel"]


@implementer(IHalfCloseableProtocol)
class HalfCloseChannel(H1Channel):
    """An HTTP/1.1 connection that stays open at the end of the client's input.

    Only while it serves a complete request. At any other time the end of the input
    ends the connection, because nothing can be answered. On TLS, Twisted's transport
    closes the connection in any case.

    Args: as for `H1Channel`.
    """

    __slots__ = ("_input_ended",)

    def __init__(
        self,
        server: ApplicationServer,
        sockets: Sockets,
        head_limits: HeadLimits,
        handshakes: Handshakes,
        proxied: ProxiedAddress | None = None,
    ) -> None:
        super().__init__(server, sockets, head_limits, handshakes, proxied)
        self._input_ended = False

    # Called by the transport.

    def doRead(self) -> BaseException | None:
        """Read from the socket; return the reason if the connection is lost."""
        why = super().doRead()
        if why is CONNECTION_DONE and self._serves_complete_request():
            self._end_input()
            return None
        return why

    def readConnectionLost(self) -> None:
        """Handle the end of the input, on a transport that the reactor watches."""
        if self.outlives_input:
            super().readConnectionLost()
        elif self._serves_complete_request():
            self._end_input()
        else:
            self._lose()

    def writeConnectionLost(self) -> None:
        """No-op, required by IHalfCloseableProtocol."""

    def _cancels_at_end(self, exchange: Exchange) -> bool:
        """Return False: the client may have closed its sending side only."""
        return False

    def _serves_complete_request(self) -> bool:
        exchange = self.exchange
        return self.state is SERVING and exchange is not None and exchange.body.complete

    def _end_input(self) -> None:
        """Stop reading; the last request received is the last of the connection."""
        self._input_ended = True
        if not self._request_waits:
            self._h1.persistent = False
        if not self.reading_paused:
            self.reading_paused = True
            if self._fd >= 0:
                # Keeps the descriptor watched, for a reset by the client.
                self._sockets.watch_hang_up(self._fd, True)
            self.transport.pauseProducing()

    def _lose(self) -> None:
        """Lose the connection, as without support for half-closed connections."""
        if self.state is not CLOSED:
            self.transport.connectionLost(DONE)

    # The inbox.

    def _pump(self, in_turn: bool = False) -> None:
        super()._pump(in_turn)
        self._close_if_last()

    def _next_exchange(self, now: float) -> None:
        super()._next_exchange(now)
        self._close_if_last()

    def _close_if_last(self) -> None:
        """Close when the requests received before the end of the input are served."""
        if not self._input_ended or self._pumping:
            return
        exchange = self.exchange
        if exchange is None:
            self._close()
        elif (
            not exchange.body.complete
            and exchange.body.error is None
            and not self._request_waits
        ):
            # The rest of its body cannot come.
            self.server.hub.at_next_turn(self._lose)

    # Closing.

    def _resume_reading(self) -> None:
        if not self._input_ended:
            super()._resume_reading()

    def _close_lingering(self, seconds: float | None = None) -> None:
        if self._input_ended:
            # There is no unread input that would reset the connection.
            self._close()
        else:
            super()._close_lingering(seconds)
