"""What the connections of one server share: the factory.

It knows the application, the settings, and who is connected. It must never know
what is listened on.
"""

from __future__ import annotations

import os
from contextvars import Context, copy_context
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._http.parser import HeadLimits
from txgreenwsgi._http.writer import ResponseHead, date_field
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._switching.pool import Pool
from txgreenwsgi._wsgi.application_check import checked_application
from txgreenwsgi._wsgi.environ import base_environ
from txgreenwsgi.isolation import isolate_loaded
from txgreenwsgi.origins import EXTENSIONS
from txgreenwsgi.settings import Settings

from .channel import Channel
from .sockets import Sockets
from .unpatched import log_if_unpatched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IAddress, IDelayedCall

    from txgreenwsgi._switching.greenlets import Hub
    from txgreenwsgi._wsgi.gateway import Application
    from txgreenwsgi.monitoring.records import ExchangeRecord

    from .exchange import Exchange
    from .names import ServerAddresses

__all__ = ["GreenSite", "RequestInFlight"]

_log = Logger()

#: Deadlines are looked at so often: no timer is set for a request.
_CHECK_SECONDS = 0.25

#: After the grace, what is told to end has so long to clean up.
_LAST_SECONDS = 1.0


@dataclass(frozen=True)
class RequestInFlight:
    """One line of the table of requests, as `txgreenwsgi.requests` of environ gives it.

    Attributes:
        request_id: what logs call it.
        method: such as "GET".
        path: percent-decoded, as PATH_INFO.
        age: seconds since its head was complete.
        state: the task's: "parked", "running" or "ready"; or "queued".
        waiting_on: what a parked task waits on, in words; "" otherwise.
    """

    request_id: str
    method: str
    path: str
    age: float
    state: str
    waiting_on: str


@implementer(IProtocolNegotiationFactory)
class GreenSite(Factory):
    """Serves a WSGI application on every connection of any stream endpoint.

    Args:
        application: the WSGI callable; None if it is set later, before the
            first connection.
        settings: see `txgreenwsgi.settings`; or give single ones by keyword.
        observers: each is called with an `ExchangeRecord` when an exchange has
            ended. It must not wait.
        reactor: the installed one by default, from the first use on.

    Attributes:
        stopping: whether connections close after their next response.
        connections: the channels of all open connections.
        exchanges: all that have begun and not ended.
        orphans: those of them whose connection is lost.
        addresses: what `names_of` keeps.
        adds_lines: whether `lines_to_add` has any.
    """

    noisy = False

    def __init__(
        self,
        application: Application | None = None,
        settings: Settings | None = None,
        observers: Sequence[Callable[[ExchangeRecord], object]] = (),
        reactor: Any = None,
        **keywords: Any,
    ) -> None:
        if settings is not None and keywords:
            raise TypeError(
                "give a Settings object or single settings by keyword, not both: "
                f"{', '.join(keywords)}"
            )
        # Whether Django is loaded by now, later, or never.
        isolate_loaded()
        self.settings = settings or Settings.from_keywords(**keywords)
        self.application: Any = application
        if application is not None:
            checked_application(application)
        self.observers = list(observers)
        self.stopping = False
        self.connections: set[Channel] = set()
        self.exchanges: set[Exchange] = set()
        self.addresses: ServerAddresses = WeakKeyDictionary()
        self.orphans: set[Exchange] = set()
        self.context: Context = copy_context()
        self.pool = Pool(self.settings.max_in_flight, self.settings.max_queued)
        self.limits = HeadLimits(
            size=self.settings.max_header_size,
            fields=self.settings.max_headers,
            target=self.settings.max_target,
            trailers=self.settings.max_trailer_size,
            chunk_extensions=self.settings.max_chunk_extensions,
        )
        self.environ = EXTENSIONS | base_environ(
            self.settings.server_header or "txgreenwsgi",
            self.settings.max_in_flight > 1,
            self.settings.environ,
        )
        self.environ["txgreenwsgi.requests"] = self.requests
        self._reactor = reactor
        self._hub: Hub | None = None
        self._sockets: Sockets | None = None
        self._check_call: IDelayedCall | None = None
        self._emptied: list[Deferred[None]] = []
        self._end_call: IDelayedCall | None = None
        self._id_prefix = ""
        self._last_id = 0
        self._date = b""
        self._date_second = 0
        server = self.settings.server_header
        self._server_line = f"Server: {server}\r\n".encode("latin-1") if server else b""
        if any(name.lower() == "server" for name, _ in self.settings.add_header):
            self._server_line = b""
        self.adds_lines = bool(self.settings.add_header)
        self._added = [
            (name.lower().encode("latin-1"), f"{name}: {value}\r\n".encode("latin-1"))
            for name, value in self.settings.add_header
        ]

    # What every connection asks.

    @property
    def reactor(self) -> Any:
        """The reactor, imported at the first use if none was given."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    @property
    def hub(self) -> Hub:
        """The reactor's tasks."""
        if self._hub is None:
            self._hub = hub_of(self.reactor)
        return self._hub

    @property
    def sockets(self) -> Sockets:
        """What watches the plain connections."""
        if self._sockets is None:
            self._sockets = Sockets(self.reactor)
        return self._sockets

    def startFactory(self) -> None:
        """It is listened on: for the first time, or again after a `stop`."""
        self.stopping = False
        log_if_unpatched()

    def buildProtocol(self, addr: IAddress | None) -> Channel | None:  # type: ignore[override]
        """A channel for a new connection; None closes it: there are too many."""
        most = self.settings.max_connections
        if most and len(self.connections) >= most:
            return None
        return Channel(self)

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS offers by ALPN (RFC 7301): without it, clients that ask fail."""
        return [b"http/1.1"]

    def next_request_id(self) -> str:
        """A name for a request, unlike that of any other of any process."""
        if not self._id_prefix:
            # Not at start: worker processes are forked later.
            self._id_prefix = os.urandom(4).hex()
        self._last_id += 1
        return f"{self._id_prefix}-{self._last_id:x}"

    def unix_time(self) -> float:
        """Seconds since 1970."""
        return time()

    def common_lines(self) -> tuple[bytes, bytes]:
        """The Date and Server lines of a response sent now."""
        now = int(time())
        if now != self._date_second:
            self._date_second = now
            self._date = date_field(now)
        return self._date, self._server_line

    def lines_to_add(self, head: ResponseHead) -> bytes:
        """The deployer's fields that the application has not given."""
        return b"".join(line for name, line in self._added if not head.has(name))

    def plain_response(
        self, status: str, text: str, retry_after: int = 0, bodiless: bool = False
    ) -> tuple[bytes, int, int]:
        """A whole response of the server's own that closes the connection.

        Returns:
            Its bytes, its status code, and how many of the bytes are its body.
        """
        body = (text.rstrip("\n") + "\n").encode("utf-8", "replace")
        fields = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ]
        if retry_after:
            fields.append(("Retry-After", str(retry_after)))
        head = ResponseHead(status, fields)
        added = self.lines_to_add(head)
        data = head.encode(*self.common_lines(), added + b"Connection: close\r\n")
        if bodiless:
            return data, head.code, 0
        return data + body, head.code, len(body)

    # Who is connected.

    def connection_made(self, channel: Channel) -> None:
        """A connection begins."""
        self.connections.add(channel)
        if self._check_call is None:
            self._check_call = self.reactor.callLater(_CHECK_SECONDS, self._check)

    def connection_lost(self, channel: Channel) -> None:
        """A connection has ended."""
        self.connections.discard(channel)
        self._rest_if_empty()

    def _check(self) -> None:
        self._check_call = self.reactor.callLater(_CHECK_SECONDS, self._check)
        now = self.reactor.seconds()
        everything: list[Channel | Exchange] = [*self.connections, *self.orphans]
        for checked in everything:
            self._check_one(checked, now)

    def _check_one(self, checked: Channel | Exchange, now: float) -> None:
        try:
            checked.check(now)
        except Exception:
            # The others have deadlines too.
            _log.failure("looking at the deadlines of {it} failed", it=checked)

    # What has happened.

    def exchange_ended(self, exchange: Exchange) -> None:
        """Tell the observers of the exchange, and forget it."""
        if self.observers:
            self.observe(exchange.record())
        self.forget(exchange)

    def forget(self, exchange: Any) -> None:
        """It is in flight no longer; whoever waits for the last one is told."""
        self.exchanges.discard(exchange)
        if self.orphans:
            self.orphans.discard(exchange)
        if not self.connections:
            self._rest_if_empty()

    def observe(self, record: ExchangeRecord) -> None:
        """Give a record to the observers."""
        for observer in self.observers:
            _tell(observer, record)

    def requests(self) -> list[RequestInFlight]:
        """The table of requests in flight, the oldest first. Never parks."""
        now = self.reactor.seconds()
        table = []
        for exchange in sorted(self.exchanges, key=_age_order):
            task = exchange.task
            waiting_on = None if task is None else task.waiting_on
            table.append(
                RequestInFlight(
                    exchange.request_id,
                    exchange.head.method,
                    exchange.head.path,
                    now - exchange.started,
                    "queued" if task is None else task.state,
                    "" if waiting_on is None else _in_words(waiting_on),
                )
            )
        return table

    # Stopping.

    def stop(self, grace_seconds: float | None = None) -> Deferred[None]:
        """Let what was read be answered, then close; end what takes too long.

        Call when nothing is listened on any more, from the reactor greenlet.
        Connections without a request are closed at once, busy ones after their
        response. After the grace `Cancelled` is raised in every request that is
        left, and a second later they are gone, whatever they do.

        Returns:
            A Deferred that fires when no connection and no request is left.
        """
        self.stopping = True
        done: Deferred[None] = Deferred()
        self._emptied.append(done)
        for channel in list(self.connections):
            channel.stop()
        self._rest_if_empty()
        if not done.called and self._end_call is None:
            grace = (
                self.settings.graceful_timeout
                if grace_seconds is None
                else grace_seconds
            )
            self._end_call = self.reactor.callLater(grace, self._end_requests)
        return done

    def cut_short(self) -> None:
        """End the grace of `stop` now."""
        call = self._end_call
        if call is not None and call.active():
            call.reset(0)

    def _end_requests(self) -> None:
        self._end_call = self.reactor.callLater(_LAST_SECONDS, self._end_connections)
        for exchange in list(self.exchanges):
            _log.warn("{request} is cut off: the server stops", request=exchange)
            exchange.cancel()
        for channel in list(self.connections):
            if channel.exchange is None:
                channel.close()
        self._rest_if_empty()

    def _end_connections(self) -> None:
        for exchange in list(self.exchanges):
            task = exchange.task
            if task is not None:
                _log.warn(
                    "{request} did not end by itself: it waits on {what}",
                    request=exchange,
                    what=_in_words(task.waiting_on),
                )
                task.kill()
        if self.exchanges:
            # What not even that has ended must not keep the process alive.
            self.exchanges.clear()
            self.orphans.clear()
        for channel in list(self.connections):
            channel.abort()
        self._rest_if_empty()

    def _rest_if_empty(self) -> None:
        """Nothing is left to be looked at: stop looking, and tell who waits for it."""
        if self.connections or self.exchanges:
            return
        if self._check_call is not None:
            self._check_call.cancel()
            self._check_call = None
        if self._end_call is not None:
            if self._end_call.active():
                self._end_call.cancel()
            self._end_call = None
        emptied, self._emptied = self._emptied, []
        for done in emptied:
            done.callback(None)


def _tell(observer: Callable[[ExchangeRecord], object], record: ExchangeRecord) -> None:
    try:
        observer(record)
    except Exception:
        _log.failure("an observer of requests failed: {observer}", observer=observer)


def _age_order(exchange: Exchange) -> tuple[float, int, str]:
    # Identities count up: they tell which of one moment was first.
    return exchange.started, len(exchange.request_id), exchange.request_id


def _in_words(waiting_on: object) -> str:
    return waiting_on if isinstance(waiting_on, str) else repr(waiting_on)
