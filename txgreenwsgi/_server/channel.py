"""One connection: bytes in, exchanges in turn, pressure both ways.

The parser's events wait in an inbox; `_pump` hands them out, one exchange at a
time, and runs in the reactor greenlet only. While the inbox holds what nobody
can use yet, reading from the client is paused.

This file owns a transport. It must never know the application.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocol, ITCPTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._http.head import END, Refusal, RequestHead
from txgreenwsgi._http.parser import RequestParser
from txgreenwsgi._http.writer import STATUSES
from txgreenwsgi._switching.greenlets import SLICE_SECONDS
from txgreenwsgi._wsgi.input import MOST_PIECE_BYTES
from txgreenwsgi.monitoring.records import ExchangeRecord

from .body import DRAIN_BYTES, BadBody
from .exchange import Exchange
from .names import names_of
from .output import SocketOutput, output_for
from .sockets import DONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from txgreenwsgi._http.parser import Event

    from .output import Output
    from .site import GreenSite

__all__ = ["Channel"]

_log = Logger()

#: A connection that is being closed has so many seconds for it, and so has what
#: is left of the body of a request that was answered.
_CLOSE_SECONDS = 5.0

#: What a client goes on sending after its last response is thrown away up to this
#: size. Many send a whole upload before they look at the answer.
_LINGER_BYTES = 16 * 1024 * 1024

#: What is read from a socket at once.
_READ_BYTES = 65536

# Of all connections of which no event waits: an empty deque takes 600 bytes. Never
# changed.
_NOTHING: deque[Event] = deque(maxlen=0)

#: For a reader who asks for less, no less is read: he will ask again.
_LEAST_READ_BYTES = 16384


@implementer(IProtocol)
class Channel:
    """The Twisted protocol of one connection.

    Attributes:
        site: what all connections share.
        hub: the reactor's tasks.
        transport: None before the connection is made and after it is lost.
        output: the way out.
        exchange: the one that runs; None between requests.
        connected: whether the client is there, as far as is known.
        closing: whether no further request is begun.
        closing_now: whether the transport was told to close.
        reading_paused: whether the transport was told to stop reading.
    """

    __slots__ = (
        "_begin_queued",
        "_close_at",
        "_discarded",
        "_fd",
        "_inbox",
        "_names",
        "_parser",
        "_pumping",
        "_since",
        "closing",
        "closing_now",
        "connected",
        "exchange",
        "hub",
        "output",
        "reading_paused",
        "site",
        "transport",
    )

    output: Output

    def __init__(self, site: GreenSite) -> None:
        self.site = site
        self.hub = site.hub
        self.transport: Any = None
        self.exchange: Exchange | None = None
        self.connected = False
        self.closing = False
        self.closing_now = False
        self.reading_paused = False
        self._discarded = 0
        self._parser = RequestParser(site.limits)
        self._inbox = _NOTHING
        self._pumping = False
        # Since when the connection has been idle, or its head has been coming.
        self._since = 0.0
        self._close_at = 0.0
        self._names: tuple[str, str, str, str, str] | None = None
        self._begin_queued: Any = None
        # Our sockets' name for it; -1 where the reactor watches the transport.
        self._fd = -1

    # What the transport calls.

    def makeConnection(self, transport: Any) -> None:
        """The connection is there."""
        self.transport = transport
        self.connected = True
        self._since = self.hub.reactor.seconds()
        if self.site.sockets.adopt(self, transport):
            self._fd = transport.fileno()
        elif ITCPTransport.providedBy(transport):
            # Head and body leave in one send, so there is nothing to gather.
            transport.setTcpNoDelay(True)
        self.output = output_for(transport, self._broken)
        self.site.connection_made(self)

    def connectionMade(self) -> None:
        """Part of IProtocol; everything is done in `makeConnection`."""

    def logPrefix(self) -> str:
        """What Twisted's log lines call us."""
        return "txgreenwsgi"

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client."""
        if self.closing_now:
            # Read and thrown away for a while: unread bytes would reset the
            # connection, and the client would lose the response.
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self.abort()
            return
        parser = self._parser
        if self.exchange is not None or self._pumping or self._inbox:
            self._put(parser.feed(data, True))
            if not self._pumping:
                self._pump()
            return
        if parser.idle:
            self._since = self.hub.reactor.seconds()
        events = parser.feed(data, True)
        if len(events) == 2 and events[1] is END and not self.closing:
            # Most requests: whole, and without a body.
            self._begin(events[0], True)  # type: ignore[arg-type]
            if not parser.has_unread:
                return
        else:
            self._put(events)
        self._pump()

    def readable(self) -> Any:
        """Bytes, or the end, are there to be read; why the connection is lost."""
        try:
            data = self.transport.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.dataReceived(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone: by the client, by us, or by the network."""
        self.connected = False
        self.closing = self.closing_now = True
        self._inbox = _NOTHING
        self._parser.stop()
        self.output.disconnected()
        if self._fd >= 0:
            self.site.sockets.forget(self, self._fd)
        self.site.connection_lost(self)
        exchange = self.exchange
        self.exchange = None
        if exchange is not None:
            exchange.client_lost()
            if self._leave_queue():
                self.site.exchange_ended(exchange)
            elif not exchange.served:
                self.site.orphans.add(exchange)
        self.transport = None

    def hung_up(self) -> None:
        """The client has gone while reading was paused."""
        self.abort()

    def _broken(self) -> None:
        """Nothing more can be sent: the connection is gone, or must go."""
        self.connected = False
        if self.exchange is not None:
            self.exchange.client_lost()
        self.abort()

    # Handing out what was read.

    def _put(self, events: list[Event]) -> None:
        if not self._inbox:
            self._inbox = deque()
        self._inbox.extend(events)

    def _pump(self) -> None:
        self._pumping = True
        parser = self._parser
        try:
            while self._inbox or parser.has_unread:
                exchange = self.exchange
                if exchange is None:
                    if self.closing:
                        self._inbox = _NOTHING
                        parser.stop()
                        break
                    if not self._inbox:
                        self._put(parser.feed(b"", one=True))
                        continue
                    event = self._inbox.popleft()
                    if type(event) is RequestHead:
                        self._begin(event)
                    elif type(event) is Refusal:
                        self._refuse(event)
                elif exchange.body.complete:
                    break  # the next request waits for this one's end
                else:
                    self._hand_body(exchange, self._inbox.popleft())
            if not self._inbox:
                self._inbox = _NOTHING
        finally:
            self._pumping = False
        self.see_to_reading()

    def _hand_body(self, exchange: Exchange, event: Event) -> None:
        if event is END:
            exchange.body.ended()
            if exchange.task is not None and self._still_has(exchange):
                # What the application had left of it was drained.
                self._next_exchange()
        elif type(event) is Refusal:
            exchange.body.fail(BadBody(event.status, event.reason))
        else:
            exchange.body.received(event)  # type: ignore[arg-type]

    def _still_has(self, exchange: Exchange) -> bool:
        return self.exchange is exchange and exchange.served

    def _begin(self, head: RequestHead, complete: bool = False) -> None:
        """Begin an exchange; `complete` where its body is, which then is empty."""
        site = self.site
        self.exchange = exchange = Exchange(self, head, complete)
        site.exchanges.add(exchange)
        if not complete:
            # What has come with the head is there before the application asks.
            while self._inbox and not exchange.body.complete:
                self._hand_body(exchange, self._inbox.popleft())
        limit = site.settings.max_body
        if limit and head.content_length is not None and head.content_length > limit:
            self._refuse_exchange(
                exchange, "413 Content Too Large", f"at most {limit} bytes are taken"
            )
        elif site.pool.take():
            exchange.begin_task()
        else:
            self._queue(exchange)

    def _queue(self, exchange: Exchange) -> None:
        """Have the exchange begin when another one ends; or refuse it."""
        site = self.site

        def begin() -> None:
            if self._begin_queued is begin:
                self._begin_queued = None
                exchange.begin_task()
            else:
                # It was refused, or its client left, after the place was taken.
                self._begin_other(site.pool.give_back())

        if site.pool.queue(begin):
            self._begin_queued = begin
            self.names()  # for its record, when the connection is lost
        else:
            self._refuse_exchange(
                exchange, "503 Service Unavailable", "too many requests at once", 1
            )

    def _leave_queue(self) -> bool:
        """Give up waiting for a place; whether the exchange did."""
        begin, self._begin_queued = self._begin_queued, None
        if begin is None:
            return False
        self.site.pool.leave(begin)
        return True

    def _begin_other(self, begin: Callable[[], object] | None) -> None:
        """Begin what has waited for the place that became free, if anything has."""
        if begin is not None:
            # From the top of the stack: a chain of short requests is no recursion.
            self.hub.at_next_turn(begin)

    def refuse_queued(self, reason: str) -> None:
        """Answer the exchange that waits for a place, without the application."""
        if self.exchange is not None and self._leave_queue():
            self._refuse_exchange(self.exchange, "503 Service Unavailable", reason, 1)

    def _refuse_exchange(
        self, exchange: Exchange, status: str, text: str, retry_after: int = 0
    ) -> None:
        exchange.refuse(status, text, retry_after)
        self.site.exchange_ended(exchange)
        self._close_behind(exchange)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request; nothing after it is ever interpreted."""
        status = STATUSES[refusal.status]
        _log.info(
            "refused a request from {address}: {status}, {reason}",
            address=self.names()[2] or "a UNIX socket",
            status=refusal.status,
            reason=refusal.reason,
        )
        data, code, length = self.site.plain_response(status, refusal.reason)
        if self.site.observers:
            _, _, address, port, _ = self.names()
            self.site.observe(
                ExchangeRecord(
                    remote_addr=address,
                    remote_port=port,
                    started=self.site.unix_time(),
                    duration=0.0,
                    method="",
                    target="",
                    version="",
                    status=code,
                    bytes_sent=length,
                    request_id=self.site.next_request_id(),
                    referer="",
                    user_agent="",
                    outcome="refused",
                )
            )
        self.output.send_last(data)
        self.close_lingering()

    def exchange_ended(self, exchange: Exchange) -> None:
        """The task of the exchange has ended. Called in the reactor greenlet."""
        begin = self.site.pool.give_back()
        self.site.exchange_ended(exchange)
        if self.exchange is not exchange:
            pass  # the connection is lost
        elif self.closing_now:
            self.exchange = None
        elif not exchange.keep_alive or self.closing or not exchange.over:
            self._close_behind(exchange)
        elif exchange.body.complete:
            self._next_exchange()
        else:
            # The rest of the body is drained first: see _hand_body.
            self._since = self.hub.reactor.seconds()
            if self.reading_paused:
                self.see_to_reading()
        if begin is not None:
            self._begin_other(begin)

    def _next_exchange(self) -> None:
        """Go on with the next request, which may have come already."""
        self.exchange = None
        self._since = self.hub.reactor.seconds()
        if not self._pumping and (self._inbox or self._parser.has_unread):
            self._pump()
            return
        if self.reading_paused:
            self.see_to_reading()
        if self.site.stopping:
            self.stop()

    @property
    def _request_waits(self) -> bool:
        """Whether there is more behind the request that is served now."""
        return bool(self._inbox) or self._parser.has_unread

    # Pressure towards the client.

    def see_to_reading(self) -> None:
        """Pause reading while nobody can use what would come, else go on."""
        exchange = self.exchange
        wanted = not (
            exchange is not None
            and not self.closing_now
            and (exchange.body.full or (exchange.body.complete and self._request_waits))
        )
        if wanted and self.reading_paused:
            self._read_on()
        elif not wanted and not self.reading_paused and self.transport is not None:
            self.reading_paused = True
            if self._fd >= 0:
                self.site.sockets.notice_leaving(self._fd, True)
            self.transport.pauseProducing()

    def _read_on(self) -> None:
        self.reading_paused = False
        if self.transport is not None:
            self.transport.resumeProducing()
            if self._fd >= 0:
                self.site.sockets.notice_leaving(self._fd, False)

    def read_body(self, wanted: int) -> bytes | None:
        """A piece of the body, read for the task that asks for it.

        What comes while the task runs need not wait for the reactor. Call from
        that task, when it has taken all that came before.

        Returns:
            b"" if nothing has come; None if what came went its usual way.
        """
        if self._fd < 0 or self.reading_paused or self.closing_now or self._inbox:
            return b""
        hub = self.hub
        if hub.reactor.seconds() - hub.resumed_at > SLICE_SECONDS:
            return b""  # a fast client must not keep the others waiting
        size = min(max(wanted, _LEAST_READ_BYTES), MOST_PIECE_BYTES)
        try:
            data: bytes = self.transport.socket.recv(size)
        except OSError:
            return b""  # nothing there, or an error that the reactor will tell
        if not data:
            return b""  # the same of its end
        if self._parser.is_piece(data):
            return data
        self._put(self._parser.feed(data, True))
        if self._pumping:
            return b""  # it is handed out when the task parks
        self._pump()
        return None

    # Closing.

    def may_live_on(self, exchange: Exchange) -> bool:
        """Whether the connection can serve another request after `exchange`."""
        site = self.site
        if self.closing or not site.settings.keep_alive:
            return False
        if site.stopping and not self._request_waits:
            # What was read is answered; what was not is for another server.
            return False
        body = exchange.body
        if body.complete:
            return True
        if body.client_waits:
            # The client may send the body or not; nobody can tell which.
            return False
        return body.most_left_to_come <= DRAIN_BYTES

    def stop(self) -> None:
        """The server stops: close if no request has come, else after it."""
        if self.exchange is not None or self.closing_now:
            return
        if not self._more_comes():
            self.close()
        # Else a request is on its way. It is answered, and the connection closed.

    def _more_comes(self) -> bool:
        """Whether the client has sent more than was interpreted, as far as we see."""
        return bool(self._inbox) or not self._parser.idle or self.output.more_waits()

    def close(self) -> None:
        """Close in good order: what was sent arrives."""
        if self.closing_now:
            return
        self._begin_closing()
        transport = self.transport
        self.output.detach()
        if self._fd >= 0 and not self.output.left_behind:
            # Twisted's way sends nothing once more, and waits for a turn to do so.
            transport.stopReading()
            self.hub.at_next_turn(partial(transport.connectionLost, DONE))
            return
        transport.loseConnection()
        below = getattr(transport, "transport", None)
        if isinstance(below, Connection):
            # TLS would wait for the client to say goodbye too, which it need not
            # (RFC 8446 section 6.1). All we have sent is in the buffer below.
            below.loseConnection()

    def _close_behind(self, exchange: Exchange) -> None:
        """Close after the last exchange."""
        # A client that wanted it the last sends nothing more (RFC 9112 section 9.6).
        if exchange.body.complete and (
            not (exchange.head.keep_alive or self._request_waits)
            or not self._more_comes()
        ):
            self.close()
        else:
            self.close_lingering()
        self.exchange = None

    def close_lingering(self) -> None:
        """Close, but read what still comes for a while.

        A close with unread bytes in the kernel resets the connection, and the
        client may lose the response to it (RFC 9112 section 9.6).
        """
        if self.closing_now:
            return
        self._begin_closing()
        self.output.detach()
        if isinstance(self.output, SocketOutput):
            self.transport.loseWriteConnection()
        else:
            # TLS says goodbye, and reads until the client has done so too.
            self.transport.loseConnection()

    def _begin_closing(self) -> None:
        self.closing = self.closing_now = True
        seconds = _CLOSE_SECONDS
        if not isinstance(self.output, SocketOutput):
            # The transport may still hold a part of the response.
            seconds = self.site.settings.write_timeout or float("inf")
        self._close_at = self.site.reactor.seconds() + seconds
        self._inbox = _NOTHING
        self._parser.stop()
        if self.reading_paused:
            self._read_on()

    def abort(self) -> None:
        """Close at once, so that the client sees that something is missing."""
        self.closing = self.closing_now = True
        self._close_at = self.site.reactor.seconds() + _CLOSE_SECONDS
        if self.transport is not None:
            self.output.detach()
            if self.reading_paused and self._fd >= 0:
                self.site.sockets.notice_leaving(self._fd, False)
            self.transport.abortConnection()

    def check(self, now: float) -> None:
        """See to the deadlines of this connection."""
        settings = self.site.settings
        if self.closing_now:
            if now >= self._close_at:
                self.abort()
            return
        exchange = self.exchange
        if exchange is not None:
            if exchange.served:
                if now - self._since >= _CLOSE_SECONDS:
                    self.close_lingering()
                return
            if self._begin_queued is not None:
                limit = settings.queue_timeout
                if limit and now - exchange.started >= limit:
                    self.refuse_queued(f"no place became free in {limit:g} seconds")
                    return
            exchange.check(now)
        elif not self._parser.idle:
            limit = settings.header_timeout
            if limit and now - self._since >= limit:
                self._refuse(Refusal(408, f"no whole head in {limit:g} seconds"))
        else:
            limit = settings.keep_alive or settings.header_timeout
            if limit and now - self._since >= limit:
                self.close()
            elif self.site.stopping:
                self.stop()

    # Names for the environ and the log.

    def names(self) -> tuple[str, str, str, str, str]:
        """SERVER_NAME, SERVER_PORT, REMOTE_ADDR, REMOTE_PORT and the URL scheme."""
        names = self._names
        if names is None:
            site = self.site
            names = self._names = names_of(
                self.transport, site.settings.url_scheme, site.addresses
            )
        return names
