"""A twisted.web resource that serves a WSGI application.

A replacement for `twisted.web.wsgi.WSGIResource` without its thread pool.
twisted.web parses requests (also of HTTP/2) and buffers their bodies; the exchange of
`_serving` does the rest, and uses a `Request` through the stream in this file.

This file knows twisted.web. It must never know our HTTP/1.1 implementation.
"""

from __future__ import annotations

import inspect
import os
import warnings
from contextlib import suppress
from time import time
from typing import IO, TYPE_CHECKING, Any, overload
from weakref import WeakSet

from twisted.internet.interfaces import IReactorCore, ISSLTransport
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ._http.fields import join_fields, variable_name
from ._http.framing import BODILESS_CODES
from ._http.head import Malformed, RequestHead
from ._http.target import check_method, read_request_line
from ._http.writer import STATUSES
from ._server.access_log import ServerAccessLog
from ._server.ends import host_and_port, server_name
from ._server.errors import StartError
from ._server.output import (
    UNKNOWN,
    TransportOutput,
    has_unread_bytes,
    shows_progress,
    tcp_connection,
    unaccepted_bytes,
)
from ._server.unpatched import PATCH_REFUSED, log_if_unpatched, patch_remedy
from ._serving.application_server import ApplicationServer
from ._serving.body import read_after_end_error
from ._serving.exchange import QUEUED, Exchange
from ._serving.stream import Ends, concurrent_write_error
from ._switching.steady_clock import is_steady
from ._wsgi.application_check import checked_application
from .settings import Settings, refuse_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure
    from twisted.python.threadpool import ThreadPool
    from twisted.web.server import Request
    from typing_extensions import Unpack

    from ._http.writer import EarlyHints, ResponseHead
    from ._server.access_log import AccessLogFormat, AccessLogTarget
    from ._serving.registry import Observer, RequestInFlight
    from ._serving.stream import Carried, Output
    from ._switching.greenlets import Suspension
    from ._wsgi.gateway import Application
    from .settings import SettingsKeywords

__all__ = ["GreenWSGIResource"]

_log = Logger()

#: The settings that twisted.web controls, with the remedy for each.
_DECIDED_BY_TWISTED = {
    "max_connections": "leave it out: limit the listening port",
    "max_handshakes": "leave it out: limit the listening port",
    "keep_alive": "leave it out: give twisted.web's Site a timeout",
    "header_timeout": "leave it out: give twisted.web's Site a timeout",
    "body_timeout": "leave it out: give twisted.web's Site a timeout",
    "min_body_rate": "leave it out: give twisted.web's Site a timeout",
    "max_header_size": "leave it out: twisted.web has limits of its own",
    "max_headers": "leave it out: twisted.web has limits of its own",
    "max_target": "leave it out: twisted.web has limits of its own",
    "max_trailer_size": "leave it out: twisted.web has limits of its own",
    "max_chunk_extensions": "leave it out: twisted.web has limits of its own",
    "input_window": "leave it out: twisted.web buffers every request body",
    "buffer_memory": "leave it out: twisted.web buffers every request body",
    "chunked": "leave it out: twisted.web buffers every request body",
    "drain_delay": "leave it out: close the listening port some time after stop()",
    "proxy_protocol": "leave it out: listen on a haproxy: endpoint of Twisted",
    "proxy_protocol_from": "leave it out: listen on a haproxy: endpoint of Twisted",
    "prefix": "leave it out: put the resource at that path with putChild()",
    "half_close": "leave it out: twisted.web closes at the end of the input",
    "http2": "leave it out: twisted.web serves HTTP/2 if Twisted[http2] is installed",
    "http2_max_streams": "leave it out: twisted.web has limits of its own",
}


#: Time for the client to close a connection whose sending side was closed.
_CLOSE_SECONDS = 1.0

#: A GOAWAY frame (RFC 9113 section 6.8) that permits the requests on their way: no
#: error, the highest stream identifier.
_GOAWAY = b"\0\0\x08\x07\0" + bytes(4) + b"\x7f\xff\xff\xff" + bytes(4)


class GreenWSGIResource(Resource):
    """A resource that serves a WSGI application in a tree of resources.

    It may be the root, and it may have children, added with `putChild`; all other
    paths go to the application.

    The arguments of `WSGIResource`, `(reactor, threadpool, application)`, are
    accepted too, with a warning; the thread pool is not used.

    There is no `patch=`: patching must precede the import of the application, and an
    application given as an object is imported already. Call
    `txgreenwsgi.monkey.patch_all()` before that import. The resource logs a warning at
    its first request, once per process, if the program has neither patched anything
    nor chosen not to.

    Args:
        application: the WSGI callable.
        observers: callables that receive an `ExchangeRecord` when an exchange has
            ended. They must not park.
        reactor: the installed one by default, imported at the first request.
        access_log: the file to which a line is appended for each request; "-" is the
            process's standard output. The file opens at the first request, and closes
            when the reactor has shut down. If it has become inaccessible before the
            first request, that is logged and requests are served without a log. A
            relative path is relative to the working directory of this call.
        access_log_format: "combined" (Apache's format, then the duration in seconds
            and the request id) or "json" (one object per line).
        settings: see `txgreenwsgi.settings`.

    Raises:
        TypeError: the application is not callable.
        SettingError: a setting does not exist, has an invalid value, or is
            controlled by twisted.web.
        ValueError: `access_log_format` is invalid.
        StartError: the access log cannot be opened.

    Attributes:
        application_server: the state that all requests of the application share.
            (twisted.web itself sets `server`.)
    """

    @overload
    def __init__(
        self,
        application: Application,
        /,
        *,
        observers: Iterable[Observer] = (),
        reactor: IReactorTime | None = None,
        access_log: AccessLogTarget | None = None,
        access_log_format: AccessLogFormat = "combined",
        **settings: Unpack[SettingsKeywords],
    ) -> None: ...

    @overload
    def __init__(
        self,
        reactor: IReactorTime,
        threadpool: ThreadPool | None,
        application: Application,
        /,
        *,
        observers: Iterable[Observer] = (),
        access_log: AccessLogTarget | None = None,
        access_log_format: AccessLogFormat = "combined",
        **settings: Unpack[SettingsKeywords],
    ) -> None: ...

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if len(args) == 3 and keywords.get("reactor") is None:
            warnings.warn(
                "GreenWSGIResource(reactor, threadpool, application) was called as "
                "WSGIResource is; no thread pool is used: call "
                "GreenWSGIResource(application, reactor=reactor)",
                stacklevel=2,
            )
            keywords["reactor"], _, application = args
            args = (application,)
        if len(args) + ("application" in keywords) != 1:
            raise TypeError(
                f"GreenWSGIResource takes one application, not {len(args)} positional "
                "arguments: call GreenWSGIResource(application, reactor=reactor)"
            )
        self._set_up(*args, **keywords)

    def _set_up(
        self,
        application: Application,
        *,
        observers: Iterable[Observer] = (),
        reactor: IReactorTime | None = None,
        access_log: AccessLogTarget | None = None,
        access_log_format: AccessLogFormat = "combined",
        **settings: Unpack[SettingsKeywords],
    ) -> None:
        checked_application(application)
        refuse_settings(settings, PATCH_REFUSED, "GreenWSGIResource")
        refuse_settings(settings, _DECIDED_BY_TWISTED, "twisted.web")
        self._access_log: ServerAccessLog | None = None
        if access_log is not None:
            self._access_log = ServerAccessLog(access_log, access_log_format)
            observers = [*observers, self._access_log.observe]
        self.application_server = ApplicationServer(
            application, Settings.from_keywords(**settings), observers, reactor
        )
        self._connections = _Connections(self.application_server)
        self._leaf = _Leaf(self)
        self._serves = False
        self._site: object = None

    # For `inspect.signature`, `help` and editors: the preferred call.
    __init__.__signature__ = inspect.signature(_set_up)  # type: ignore[attr-defined]

    def requests(self) -> list[RequestInFlight]:
        """Return the requests in flight, the oldest first. Never parks."""
        return self.application_server.requests()

    def stop(self, grace_seconds: float | None = None) -> Deferred[None]:
        """Let the requests in flight finish, then close their connections.

        Called when the reactor stops; call it earlier, from the reactor greenlet,
        to take the resource out of service. An idle connection is closed after
        `drain_idle`, or after its next response. After the grace period `Cancelled` is
        raised in each remaining request; a second later their tasks are killed and
        their connections aborted.

        Args:
            grace_seconds: the grace period; `graceful_timeout` by default.

        Returns:
            A Deferred that fires when no request is left and the last byte of every
            response has left the process.
        """
        return self.application_server.stop(grace_seconds)

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return the application for a path without a static child."""
        assert request.prepath is not None
        assert request.postpath is not None
        request.prepath.pop()
        request.postpath.insert(0, path)
        return self._leaf

    def render(self, request: Request) -> int:
        """Begin an exchange. Called by twisted.web in the reactor greenlet."""
        server = self.application_server
        if not self._serves:
            self._serves = True
            self._begin()
        if request.site is not self._site:
            self._site = request.site
            _log_wall_time(request.site, server.reactor)
        if request.channel is None:
            # The client left before another resource, such as a
            # `DeferredResource`, passed its request on.
            return NOT_DONE_YET
        refusal: Malformed | None = None
        try:
            check_method(request.method or b"")
            head = _head_of(request, _variables_of(request))
        except Malformed as malformed:
            head, refusal = _head_of(request, {}, "/"), malformed
        stream = _Stream(request, server, self._connections.of(request))
        exchange = Exchange(stream, server, head, complete=not head.content_length)
        stream.carry(exchange)
        if refusal is not None:
            # The bytes after the head may belong to a tunnel (CONNECT).
            stream.end_connection()
            exchange.refuse(STATUSES[refusal.status], refusal.reason)
        else:
            # Start it from the reactor loop, outside the stack of twisted.web.
            server.hub.at_next_turn(stream.admit)
        return NOT_DONE_YET

    def _begin(self) -> None:
        """Begin to serve, at the first request, when the reactor is installed."""
        server = self.application_server
        server.bind()
        log_if_unpatched(patch_remedy("GreenWSGIResource"))
        if IReactorCore.providedBy(server.reactor):
            # After this phase of the shutdown, twisted.web drops its connections.
            server.reactor.addSystemEventTrigger("before", "shutdown", self.stop)
        if self._access_log is not None:
            try:
                self._access_log.open(server.reactor)
            except StartError as error:
                _log.error("serving without an access log: {error}", error=error)


class _WallClockReactor:
    """A reactor whose `seconds()` is the wall clock."""

    seconds = staticmethod(time)

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


def _log_wall_time(site: Any, reactor: IReactorTime) -> None:
    """Keep the times in the access log of a `Site` on the wall clock.

    twisted.web derives them from the reactor's clock, which no longer follows changes
    of the wall clock.
    """
    if getattr(site, "reactor", None) is reactor and is_steady(reactor):
        site.reactor = _WallClockReactor(reactor)


@implementer(IResource)
class _Leaf:
    """The application as a leaf: twisted.web ends its path traversal here."""

    isLeaf = True

    def __init__(self, resource: GreenWSGIResource) -> None:
        self._resource = resource

    def render(self, request: Request) -> int:
        return self._resource.render(request)

    def getChildWithDefault(self, name: bytes, request: Request) -> IResource:
        raise AssertionError("a leaf has no children")

    def putChild(self, path: bytes, child: IResource) -> None:
        raise AssertionError("children belong to the GreenWSGIResource")


class _Stream:
    """A `Request` of twisted.web as the stream of one exchange."""

    reading_paused = False  # twisted.web reads bodies itself
    body_is_stored = True

    def __init__(
        self, request: Request, server: ApplicationServer, connection: _Connection
    ) -> None:
        self._request = request
        self._server = server
        self._connection = connection
        self._exchange: Exchange | None = None
        self._transport_output = TransportOutput(request, self)
        self.output: Output = self._transport_output
        self.ends = _ends_of(request, server.settings.url_scheme)
        self.connected = True

    @property
    def waiting(self) -> Suspension | None:
        """The suspension of the task that is parked by backpressure."""
        return self.output.waiting

    @property
    def waits_for_connection(self) -> bool:
        """Whether the write that waits does so for the connection, not for a window."""
        if not self.connected:
            return False
        channel: Any = self._request.channel
        if isinstance(channel, HTTPChannel):
            return True
        connection, stream_id = channel._conn, channel.streamID
        return stream_id in connection.streams and bool(
            connection.conn.local_flow_control_window(stream_id) > 0
        )

    def carry(self, exchange: Exchange) -> None:
        """Attach the exchange, and watch for the loss of its client."""
        self._exchange = exchange
        self._connection.begin(exchange, self)
        self._request.notifyFinish().addErrback(self._lost)

    def admit(self) -> None:
        """Admit the exchange, unless its client has disconnected meanwhile."""
        exchange = self._exchange
        if exchange is not None and exchange.state is QUEUED:
            exchange.admit()

    def _lost(self, _: Failure) -> None:
        self.connected = False
        if self._exchange is not None:
            self._exchange.peer_lost()

    def send_failed(self) -> None:
        """Abort the connection after a failed or incomplete send."""
        if self._exchange is not None:
            self._exchange.peer_lost()
        self.reset()

    # The response.

    def early_hints(self, hints: EarlyHints) -> None:
        """Send a 103 response. May park."""
        request = self._request
        fields = Headers()
        for name, value in hints.fields():
            fields.addRawHeader(name, value)
        if self.connected:
            request.channel.writeHeaders(
                request.clientproto, b"103", b"Early Hints", fields
            )
        self._transport_output.wait()
        self.output.flush()

    def end_connection(self) -> None:
        """Close an HTTP/1.1 connection after the response; a no-op in HTTP/2."""
        channel: Any = self._request.channel
        if isinstance(channel, HTTPChannel):
            channel.persistent = False
            self._request.responseHeaders.setRawHeaders(b"connection", [b"close"])

    def start(
        self, head: ResponseHead, length: int | None, block: bytes, end: bool
    ) -> None:
        """Send the head and the first block. May park."""
        self._set_head(head, length)
        self.output.send(block)
        if not end:
            self.output.flush()

    def _set_head(self, head: ResponseHead, length: int | None) -> None:
        request = self._request
        request.setResponseCode(head.code, head.reason)
        server = self._server
        fields = head.fields()
        fields += (
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in server.common.added_to(head)
        )
        headers = request.responseHeaders
        # twisted.web sets defaults for these, and for Date, which is kept.
        headers.removeHeader(b"content-type")
        headers.removeHeader(b"server")
        if server.settings.server_header:
            headers.setRawHeaders("server", [server.settings.server_header])
        for name, _ in fields:
            headers.removeHeader(name)
        for name, value in fields:
            headers.addRawHeader(name, value)
        if head.ends_connection or (
            server.shutdown.stopping and not _has_pipelined_input(request.channel)
        ):
            self.end_connection()
        if (
            length is not None
            and head.content_length is None
            and head.code not in BODILESS_CODES
            and (length or request.method != b"HEAD")
        ):
            headers.setRawHeaders(b"content-length", [b"%d" % length])

    def data(self, block: bytes) -> None:
        """Send a block. May park."""
        self.output.send(block)
        # A block must not wait for the application's next one (PEP 3333).
        self.output.flush()

    def send_file(
        self, head: ResponseHead, length: int, fd: int, offset: int, count: int
    ) -> None:
        """Set the head only: twisted.web does not support sendfile()."""
        self._set_head(head, length)

    def more_of_file(self, fd: int, offset: int, count: int) -> int:
        raise AssertionError("twisted.web does not support sendfile()")

    def finish(self) -> None:
        """End the response. twisted.web then drops the request body."""
        if self.output.waiting is not None:
            raise concurrent_write_error()
        self._finish()

    def _finish(self) -> None:
        request = self._request
        exchange = self._exchange
        if exchange is not None and not exchange.body.complete:
            content = request.content
            if content is None or content.read(1):
                exchange.body.lose(read_after_end_error())
            else:
                exchange.body.ended()
        self.output.detach()
        if self.connected:
            request.finish()

    def end_sending(self) -> None:
        """Never called: the requests of twisted.web offer no upgrade."""
        raise AssertionError("twisted.web keeps the connection of a request")

    def upgrade(self, protocol: str, head: ResponseHead | None) -> None:
        """Never called: the requests of twisted.web offer no upgrade."""
        raise AssertionError("twisted.web keeps the connection of a request")

    def answer(self, head: ResponseHead, body: bytes, last: bool = True) -> None:
        """Send a complete response generated by the server. Never parks."""
        self._set_head(head, len(body))
        self._request.write(body)
        self._finish()

    def break_off(self) -> None:
        """Abort, because twisted.web would end the response as if complete."""
        self.reset()

    def reset(self) -> None:
        """Abort the connection, or the stream of an HTTP/2 connection."""
        channel: Any = self._request.channel
        if channel is None or not self.connected:
            return
        self.connected = False
        self.output.detach()
        if isinstance(channel, HTTPChannel):
            transport: Any = channel.transport
            transport.abortConnection()
        else:
            channel.abortConnection()

    def ended(self, exchange: Carried) -> None:
        """Forget the exchange."""
        self._exchange = None
        self.output.disconnected()  # else both would wait for the garbage collector
        self._connection.end(exchange)

    # The request body: twisted.web has received all of it.

    def stored_body(self) -> IO[bytes] | None:
        """Return the complete body as a file."""
        return self._request.content

    def read_body(self, wanted: int) -> bytes | None:
        raise AssertionError("the body is read by stored_body()")

    def send_continue(self) -> None:
        raise AssertionError("twisted.web sends 100 Continue itself")

    def read_now(self) -> bool:
        """Return False: the body was complete from the start."""
        return False

    def update_backpressure(self) -> None:
        """No-op: twisted.web reads bodies itself."""

    stop_receiving = update_backpressure


class _Connection:
    """A connection of twisted.web that carries our requests.

    It checks their deadlines, and makes the shutdown wait for their last byte:
    twisted.web would drop its transport's buffer when the reactor stops.
    """

    def __init__(self, channel: Any, owner: _Connections) -> None:
        self._channel = channel
        self._owner = owner
        self._exchanges: dict[Carried, _Stream] = {}
        self._watches_loss = False
        # Whether the client of an HTTP/2 connection knows of the shutdown.
        self._announced = False
        self._closing = False
        # Reactor time from which the connection is idle; after its half-close, the
        # time of that.
        self._since = 0.0
        # The result of `unaccepted_bytes` at the last check of a wait for the client;
        # UNKNOWN between two waits.
        self._unaccepted = UNKNOWN

    def begin(self, exchange: Carried, stream: _Stream) -> None:
        """Add an exchange."""
        self._exchanges[exchange] = stream

    def end(self, exchange: Carried) -> None:
        """Remove an ended exchange."""
        self._exchanges.pop(exchange, None)
        if not self._exchanges:
            if self._owner.server.shutdown.stopping:
                self._since = self._owner.server.reactor.seconds()
                self.stop()
            else:
                self._owner.forget(self._channel)

    def check(self, now: float) -> None:
        """Apply the deadlines of the exchanges."""
        self._note_progress(now)
        for exchange in list(self._exchanges):
            exchange.check(now)
        if self._owner.server.shutdown.stopping:
            self.stop()

    def _note_progress(self, now: float) -> None:
        """Restart the time limits of sending if the client has accepted bytes."""
        writers = [
            writer
            for stream in self._exchanges.values()
            if (writer := stream.waiting) is not None and stream.waits_for_connection
        ]
        if not writers:
            self._unaccepted = UNKNOWN
            return
        before = self._unaccepted
        self._unaccepted = unaccepted_bytes(self._channel.transport)
        if shows_progress(before, self._unaccepted):
            for writer in writers:
                writer.progressed(now)

    def postpone(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor, which ended at `now`, from the deadlines."""
        for exchange in self._exchanges:
            exchange.postpone(seconds, now)

    def stop(self) -> None:
        """Close, unless a request is in progress or expected."""
        channel = self._channel
        if _is_lost(channel):
            if not self._exchanges:
                self._owner.forget(channel)
            return
        server = self._owner.server
        now = server.reactor.seconds()
        if self._closing:
            if now - self._since >= _CLOSE_SECONDS:
                self._close_socket()
            return
        if self._exchanges or _requests_of(channel):
            self._since = now
            return
        http1 = isinstance(channel, HTTPChannel)
        # The last response of an HTTP/1.1 connection has announced the close.
        expects = not http1 or channel.persistent
        if expects:
            self._watch_loss()
            if not http1 and not self._announced:
                self._announced = True
                channel.transport.write(_GOAWAY)
            idle = now - max(self._since, server.shutdown.began)
            if idle < server.settings.drain_idle:
                return
        if has_unread_bytes(channel.transport):
            return  # perhaps a request, which is served; `check` tries again
        self._since = now
        self._closing = True
        self._watch_loss()
        self._close()

    def _close(self) -> None:
        """Close the sending side; discard further input (RFC 9112 section 9.6)."""
        channel = self._channel
        transport = channel.transport
        if not isinstance(channel, HTTPChannel):
            transport.loseConnection()
            self._close_socket()
        elif ISSLTransport.providedBy(transport):
            # Twisted discards the input after close_notify.
            channel.loseConnection()
        else:
            channel.setTimeout(None)
            as_any: Any = channel
            as_any.dataReceived = _discard
            transport.unregisterProducer()
            transport.resumeProducing()
            transport.loseWriteConnection()

    def _close_socket(self) -> None:
        below = tcp_connection(self._channel.transport)
        if below is not None:
            # TLS would wait for the client's close_notify, which is optional (RFC 8446
            # section 6.1).
            below.loseConnection()
        else:
            self._channel.transport.loseConnection()

    def end_of_grace(self) -> None:
        """No-op: `check` closes when the cancelled requests have ended."""

    def abort(self) -> None:
        """Abort the connection."""
        if _is_lost(self._channel):
            self._owner.forget(self._channel)
        else:
            self._watch_loss()
            self._channel.transport.abortConnection()

    def _watch_loss(self) -> None:
        """Hook the loss of the connection: twisted.web notifies only its requests."""
        if self._watches_loss:
            return
        self._watches_loss = True
        channel = self._channel
        connection_lost = channel.connectionLost

        def lost(reason: Failure) -> None:
            with suppress(AttributeError):
                del channel.connectionLost  # it holds the channel
            connection_lost(reason)
            self._owner.forget(channel)

        channel.connectionLost = lost


def _discard(data: bytes) -> None:
    """Ignore input after the last response."""


class _Connections:
    """The connections of twisted.web that have carried requests of one resource."""

    def __init__(self, server: ApplicationServer) -> None:
        self.server = server
        self._seen: WeakSet[Any] = WeakSet()
        self._watched: dict[Any, _Connection] = {}
        server.shutdown.on_stop.append(self._watch_seen)

    def of(self, request: Request) -> _Connection:
        """Return the connection of a request, and start watching it."""
        channel: Any = request.channel
        if not isinstance(channel, HTTPChannel):
            # A stream of an HTTP/2 connection; twisted.web has no public API that
            # leads from the stream to the connection.
            channel = channel._conn
        self._seen.add(channel)
        return self._watch(channel)

    def _watch(self, channel: Any) -> _Connection:
        connection = self._watched.get(channel)
        if connection is None:
            connection = self._watched[channel] = _Connection(channel, self)
            self.server.connection_made(connection)
        return connection

    def _watch_seen(self) -> None:
        """Make the shutdown wait for responses that transports still buffer."""
        for channel in list(self._seen):
            if not _is_lost(channel):
                self._watch(channel)

    def forget(self, channel: Any) -> None:
        """Stop watching a connection that is idle or lost."""
        connection = self._watched.pop(channel, None)
        if connection is not None:
            self.server.connection_lost(connection)


def _is_lost(channel: Any) -> bool:
    """Return whether the socket below a channel is closed."""
    transport = channel.transport
    while (below := getattr(transport, "transport", None)) is not None:
        transport = below
    return transport is None or not getattr(transport, "connected", True)


def _requests_of(channel: Any) -> Any:
    """Return the requests of a channel that have unsent bytes."""
    return channel.requests if isinstance(channel, HTTPChannel) else channel.streams


def _has_pipelined_input(channel: Any) -> bool:
    """Return whether an HTTP/1.1 channel has received more than its current request."""
    # The list in which twisted.web keeps the bytes until the response has ended.
    return bool(getattr(channel, "_dataBuffer", None))


def _variables_of(request: Request) -> dict[str, str]:
    """Return the header fields of a request as environ variables.

    Raises:
        Malformed: fields contradict each other.
    """
    return join_fields(
        (variable, value.decode("latin-1"))
        for name, values in request.requestHeaders.getAllRawHeaders()
        if (variable := variable_name(name.decode("latin-1")))
        for value in values
    )


def _head_of(
    request: Request, variables: dict[str, str], path: str | None = None
) -> RequestHead:
    """Return the head of a request that twisted.web has parsed.

    Args:
        request: the request from twisted.web.
        variables: its header fields, as environ variables.
        path: its path, if it cannot be derived from the request.

    Raises:
        Malformed: the request target is invalid.
    """
    assert request.uri is not None
    assert request.method is not None
    target = request.uri
    content = request.content
    length = 0
    if content is not None:
        length = content.seek(0, os.SEEK_END)
        content.seek(0)
    if length or "HTTP_TRANSFER_ENCODING" in variables:
        # The coding is removed, and HTTP/2 needs no Content-Length: many applications
        # read no body without a CONTENT_LENGTH.
        variables.pop("HTTP_TRANSFER_ENCODING", None)
        variables["CONTENT_LENGTH"] = str(length)
    variables["SCRIPT_NAME"] = _joined(request.prepath)
    if path is None:
        path = _joined(request.postpath)
    if not target.startswith(b"/") and path != "/":
        # An absolute-form target (RFC 9112 section 3.2.2), which twisted.web splits
        # as if it was a path.
        path = read_request_line(b"GET %b HTTP/1.1" % target).path
        variables["SCRIPT_NAME"] = ""
    return RequestHead(
        method=request.method.decode("latin-1"),
        target=target,
        path=path,
        query=target.partition(b"?")[2].decode("latin-1"),
        version=request.clientproto.decode("latin-1"),
        variables=variables,
        content_length=length,
        keep_alive=True,
        expects_continue=False,
        upgrade="",
    )


def _ends_of(request: Request, url_scheme: str) -> Ends:
    """Return both ends of a request's connection."""
    scheme = url_scheme or ("https" if request.isSecure() else "http")
    name, port = host_and_port(request.getHost())
    name = server_name(name)
    if not name:
        # A UNIX socket has no name or port, and PEP 3333 forbids empty values.
        name, port = "localhost", "443" if scheme == "https" else "80"
    return Ends(
        server_name(name), port, *host_and_port(request.getClientAddress()), scheme
    )


def _joined(segments: list[bytes] | None) -> str:
    return "".join("/" + segment.decode("latin-1") for segment in segments or [])
