"""Servers over each transport, and the test case that drives them.

A transport is a server in memory or on sockets and a client that speaks to it. The
cases of the other modules use only `TransportCase`, so each of them holds for all
transports. This file must never know the expected results.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._http2 import H2Connection
from twisted.web.server import Site

from tests.certificate import TLS_OPTIONS
from tests.sockets import in_flight_to
from txgreenwsgi import GreenWSGIResource, service
from txgreenwsgi._server.tls_transport import own_factory
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._threads.pool import pool_of
from txgreenwsgi.testing import MemoryServer

from .harness_clients import Http1Connection, Http2Connection
from .harness_links import (
    MemoryLink,
    SocketLink,
    StoppableMemoryReactor,
    TlsLink,
    sever,
    virtual_time_reactor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.logger import ILogObserver, LogEvent
    from twisted.web.resource import Resource

    from txgreenwsgi.monitoring import ExchangeRecord

    from .harness_clients import Connection, Reply
    from .harness_links import Link

    Environ = dict[str, Any]
    Start = Callable[..., Any]
    App = Callable[[Environ, Start], Iterable[bytes]]
    Observer = Callable[[ExchangeRecord], object]

__all__ = [
    "HTTP1",
    "HTTP2",
    "OWN",
    "OWN_HTTP1",
    "STREAMING",
    "TEXT",
    "TRANSPORTS",
    "WEB",
    "Cases",
    "MemoryTransport",
    "Server",
    "TransportCase",
    "WebTransport",
    "on_every_transport",
]

TEXT = [("Content-Type", "text/plain")]

#: Step of the virtual clock in seconds, small enough for periodic checks.
TICK = 0.25

#: Maximum number of reactor turns before a server counts as busy forever.
_MOST_TURNS = 20000

#: Number of turns without events after which a server on sockets is idle.
_QUIET_TURNS = 4

#: Send buffer of a server on sockets, in bytes; the kernel doubles it. A buffer whose
#: size is not fixed grows when the kernel probes a client that does not read: after 200
#: real milliseconds, in which any virtual time may pass.
_SEND_BUFFER = 200_000


class Watched:
    """The application under test, and its record of the calls.

    Attributes:
        environs: the environs of all calls, in order.
        tasks: the task of each call.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.environs: list[Environ] = []
        self.tasks: list[Any] = []

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Call the application."""
        self.environs.append(environ)
        task = environ["txgreenwsgi.current_task"]()
        if task is not None:  # else the request is served in a thread
            self.tasks.append(task)
        return self._app(environ, start_response)

    def requests(self) -> list[Any]:
        """Return the table of requests in flight; empty before the first call."""
        if not self.environs:
            return []
        table: list[Any] = self.environs[0]["txgreenwsgi.requests"]()
        return table


class Server:
    """One server under test, and its clients.

    Args:
        app: the WSGI application.
        observers: called with the record of each exchange.
        settings: see `txgreenwsgi.settings`.

    Attributes:
        connections: the connections of all clients, in order.
        connection_class: the client's side of a connection.
        version: the SERVER_PROTOCOL of its requests.
        streams_bodies: whether the application runs before the whole request
            body has come.
        scheme: the wsgi.url_scheme of its requests.
        accepts_in_shutdown: whether connections can be made after `begin_stop`.
        in_order: whether requests that become ready together run in that order.
        large: a response size in bytes that cannot be sent while the client does
            not read: it exceeds the buffers of both ends.
        reactor: the reactor, which is also the clock.
    """

    connection_class: type[Connection] = Http1Connection
    version = "HTTP/1.1"
    streams_bodies = True
    scheme = "http"
    accepts_in_shutdown = True
    in_order = True
    large = 500_000
    reactor: Any

    def __init__(
        self, app: App, observers: Sequence[Observer], settings: dict[str, Any]
    ) -> None:
        self.app = Watched(app)
        self.connections: list[Connection] = []
        self.set_up(observers, settings)

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Build the server."""
        raise NotImplementedError

    def connect(self, slow: bool) -> Link:
        """Return a new connection."""
        raise NotImplementedError

    def begin_stop(self) -> Deferred[None]:
        """Stop the server; the Deferred fires when the process may exit."""
        raise NotImplementedError

    def turn(self) -> bool:
        """Run the pending work of the reactor; return whether there was any."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, and run the calls that are due."""
        raise NotImplementedError

    def skip_time(self, seconds: float) -> None:
        """Advance the clock, and run nothing."""
        self.reactor.rightNow += seconds

    def tear_down(self) -> None:
        """Close all open connections."""

    # The interface for tests.

    def begin(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        length: int | None = None,
        unsized: bool = False,
        slow: bool = False,
        stalled: bool = False,
        on: Reply | None = None,
    ) -> Reply:
        """Send a request, and let the server process it.

        Args:
            method: the method, such as "GET".
            target: the request target.
            headers: fields besides Host and Content-Length.
            body: the body, or the first part of it.
            length: the Content-Length of a body that is sent in part; the rest
                follows by `Reply.send_body`.
            unsized: whether the body has no Content-Length, and follows by
                `send_body`: chunked in HTTP/1.1.
            slow: whether the client does not read the response.
            stalled: whether the HTTP/2 client reads without enlarging its window.
            on: an earlier reply, whose connection is used. By default, the
                request gets a new connection.
        """
        fields = [("Host", "test.example"), *headers]
        if unsized:
            if self.version == "HTTP/1.1":
                fields.append(("Transfer-Encoding", "chunked"))
        elif length is not None:
            fields.append(("Content-Length", str(length)))
        elif body:
            fields.append(("Content-Length", str(len(body))))
        if on is None:
            connection = self.connection_class(self.connect(slow))
            connection.makes_room = not stalled
            self.connections.append(connection)
        else:
            connection = on.connection
        partial = unsized or length is not None
        reply = connection.request(method, target, fields, body, partial)
        self.settle()
        return reply

    def send_body(self, reply: Reply, data: bytes, end: bool = False) -> None:
        """Send a piece of a request body, and let the server process it."""
        reply.connection.send_body(reply, data, end)
        self.settle()

    def settle(self) -> None:
        """Run the server and its clients until both are idle."""
        for _ in range(_MOST_TURNS):
            worked = self.turn()
            for connection in self.connections:
                worked = connection.pump() or worked
            if not worked:
                return

    def advance(self, seconds: float) -> None:
        """Advance the clock in steps of `TICK`."""
        left = seconds
        while left > 0:
            self.pass_time(min(TICK, left))
            left -= TICK
        self.settle()

    def stall(
        self, seconds: float, meanwhile: Callable[[], object] | None = None
    ) -> None:
        """Let time pass in which the server does nothing, as in a stopped process.

        Call after the application was called.

        Args:
            seconds: the duration.
            meanwhile: called in that time, for the clients.
        """
        hub = hub_of(self.reactor)
        hub.detects_stalls = True
        self.skip_time(seconds)
        if meanwhile is not None:
            meanwhile()
        self.settle()
        hub.detects_stalls = False

    def soon(self, function: Callable[[], object]) -> None:
        """Call `function` at the reactor's next turn. For applications."""
        self.reactor.callLater(0, function)

    def stop(self) -> Stop:
        """Stop the server, as at the end of its process."""
        return Stop(self)

    def read(self, reply: Reply) -> None:
        """Make a slow or stalled client read everything from now on."""
        reply.connection.makes_room = True
        link = reply.connection.link
        link.reading, link.in_sips = True, False
        self.settle()

    def read_some(self, reply: Reply, size: int) -> None:
        """Make a slow client read at least `size` body bytes, then pause it again."""
        wanted = len(reply.body) + size
        link = reply.connection.link
        link.reading = link.in_sips = True
        for _ in range(_MOST_TURNS):
            if len(reply.body) >= wanted:
                break
            self.turn()
            reply.connection.pump()
        link.reading = False
        self.settle()

    def disconnect(self, reply: Reply) -> None:
        """Close the connection of a client."""
        reply.connection.link.disconnect()
        self.settle()

    def end_input(self, reply: Reply) -> None:
        """Close the sending side of the connection of a client (a half-close)."""
        reply.connection.link.end()
        self.settle()

    def abandon(self, reply: Reply) -> None:
        """Abort a request: by RST_STREAM in HTTP/2, else by closing the connection."""
        reply.connection.abandon(reply)
        self.settle()


class Stop:
    """The shutdown of a server.

    When the server reports that it has stopped, all its connections are closed, as at
    the end of the process: bytes not sent by then are lost.

    Attributes:
        after: seconds from the call to the end; None before.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._began = server.reactor.seconds()
        self.after: float | None = None
        server.begin_stop().addCallback(self._stopped)
        server.settle()

    def _stopped(self, _: None) -> None:
        self.after = self._server.reactor.seconds() - self._began
        sever(self._server.reactor)

    @property
    def done(self) -> bool:
        """Whether the server has stopped."""
        return self.after is not None


class MemoryTransport(Server):
    """Our HTTP/1.1 in memory."""

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Build the server."""
        self._server = MemoryServer(self.app, observers, **settings)
        self.reactor = self._server.reactor
        self._site = self._server.site
        carrier: Any = self._server
        carrier.site = self.layered(self._site)

    def layered(self, site: Any) -> Any:
        """Return the site, wrapped in the layers between it and the connection."""
        return site

    def connect(self, slow: bool) -> Link:
        """Return a new connection."""
        return MemoryLink(self._server, slow)

    def begin_stop(self) -> Deferred[None]:
        """Stop the site."""
        return self._site.stop()

    def turn(self) -> bool:
        """Run the pending work of the reactor."""
        self._server.settle()
        return False

    def pass_time(self, seconds: float) -> None:
        """Advance the clock."""
        self._server.advance(seconds)


class TwistedTlsTransport(MemoryTransport):
    """Our HTTP/1.1 over Twisted's TLS, in memory."""

    scheme = "https"

    def layered(self, site: Any) -> Any:
        """Return the site wrapped in TLS."""
        return TLSMemoryBIOFactory(TLS_OPTIONS, False, site, clock=self.reactor)

    def connect(self, slow: bool) -> Link:
        """Return a new connection."""
        return TlsLink(super().connect(slow))


class TlsTransport(TwistedTlsTransport):
    """Our HTTP/1.1 over our own TLS, in memory."""

    def layered(self, site: Any) -> Any:
        """Return the site wrapped in TLS."""
        return own_factory(super().layered(site), site)


class Http2Transport(MemoryTransport):
    """Our HTTP/2 in memory, with prior knowledge."""

    connection_class = Http2Connection
    version = "HTTP/2.0"

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Build the server."""
        super().set_up(observers, settings | {"http2": "h2c"})


class TwistedTlsHttp2Transport(Http2Transport, TwistedTlsTransport):
    """Our HTTP/2 over Twisted's TLS, in memory."""

    def connect(self, slow: bool) -> Link:
        """Return a new connection."""
        return TlsLink(MemoryTransport.connect(self, slow), "h2")


class TlsHttp2Transport(TwistedTlsHttp2Transport, TlsTransport):
    """Our HTTP/2 over our own TLS, in memory."""


class SocketTransport(Server):
    """Our HTTP/1.1 on real sockets, as a service."""

    accepts_in_shutdown = False
    large = 20_000_000

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Start the service on a free port."""
        self.reactor = virtual_time_reactor()
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        self._service = service(
            self.app,
            [endpoint],
            observers=observers,
            reactor=self.reactor,
            gc="unchanged",  # of the process that runs the tests
            **settings,
        )
        self._service.startService()
        port: Any = self._service.ports[0]
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        address: Any = port.getHost()
        self._port = address.port
        self._quiet = 0

    def connect(self, slow: bool) -> Link:
        """Return a new connection."""
        return SocketLink(self._port, slow)

    def begin_stop(self) -> Deferred[None]:
        """Stop the service."""
        return self._service.stopService()

    def turn(self) -> bool:
        """Run the pending work of the reactor, and wait briefly for the kernel."""
        due = self.reactor.due
        self.reactor.iterate(0 if due else 0.001)
        return bool(due)

    def settle(self) -> None:
        """Run the server and its clients until both are idle."""
        quiet = 0
        for _ in range(_MOST_TURNS):
            worked = self.turn()
            for connection in self.connections:
                worked = connection.pump() or worked
            quiet = 0 if worked or self._in_flight() else quiet + 1
            if quiet == _QUIET_TURNS:
                return

    def _in_flight(self) -> bool:
        """Return whether bytes on their way to a slow client were not acknowledged.

        The kernel does that up to 40 real milliseconds after their arrival, and the
        server counts it as progress: no virtual time may pass meanwhile.
        """
        links = [connection.link for connection in self.connections]
        return in_flight_to(
            {
                link.port
                for link in links
                if isinstance(link, SocketLink) and link.slow and not link.ended
            }
        )

    def pass_time(self, seconds: float) -> None:
        """Advance the clock; run two turns: for due calls, and for their effects."""
        self.reactor.pass_time(seconds)
        turns = 0
        while turns < 2 or (self._in_flight() and turns < _MOST_TURNS):
            turns += 1
            self.reactor.iterate(0 if turns <= 2 else 0.001)
            for connection in self.connections:
                connection.pump()

    def skip_time(self, seconds: float) -> None:
        """Advance the clock, and run nothing."""
        self.reactor.pass_time(seconds)

    def tear_down(self) -> None:
        """Stop listening."""
        if self._service.running:
            self._service.stopService()
            self.settle()


class SocketHttp2Transport(SocketTransport):
    """Our HTTP/2 on real sockets, as a service."""

    connection_class = Http2Connection
    version = "HTTP/2.0"
    large = 500_000  # the window of a stream is smaller than the buffers

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Start the service on a free port."""
        super().set_up(observers, settings | {"http2": "h2c"})


class ThreadsTransport(SocketTransport):
    """Our HTTP/1.1 on real sockets, with every request in a real thread."""

    in_order = False

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Start the service on a free port."""
        super().set_up(observers, settings | {"threads_for": "all"})
        self._threads = pool_of(hub_of(self.reactor))

    def soon(self, function: Callable[[], object]) -> None:
        """Call `function` at the reactor's next turn. For applications."""
        self.reactor.callFromThread(function)

    def turn(self) -> bool:
        """Run the pending work of the reactor and of the threads."""
        worked = super().turn()
        return self._threads.computes or worked

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, and run the calls that are due to their effects."""
        super().pass_time(seconds)
        for _ in range(_MOST_TURNS):
            if not self._threads.computes:
                break
            super().turn()
        else:
            raise AssertionError("a request's thread neither ends nor waits")
        super().pass_time(0)


class WebTransport(Server):
    """A GreenWSGIResource of twisted.web in memory, over HTTP/1.1."""

    streams_bodies = False

    def set_up(self, observers: Sequence[Observer], settings: dict[str, Any]) -> None:
        """Build the resource and its site."""
        self.reactor = StoppableMemoryReactor()
        resource = GreenWSGIResource(
            self.app, reactor=self.reactor, observers=observers, **settings
        )
        # The carrier of bytes in memory; its own site is not used.
        self._memory = MemoryServer(self.app)
        self._memory.reactor = self.reactor
        self.resource = resource
        self.serve_tree(resource)

    def serve_tree(self, root: Resource) -> None:
        """Serve a tree of resources."""
        # twisted.web's own idle timeout would interfere with the cases.
        site = Site(root, reactor=self.reactor, timeout=None)
        carrier: Any = self._memory
        carrier.site = self.factory_of(site)

    def factory_of(self, site: Site) -> object:
        """Return the factory of the protocols."""
        return site

    def connect(self, slow: bool) -> Link:
        """Return a new connection."""
        return MemoryLink(self._memory, slow)

    def begin_stop(self) -> Deferred[None]:
        """Shut down the reactor, which is what stops a resource."""
        return self.reactor.shut_down()  # type: ignore[no-any-return]

    def turn(self) -> bool:
        """Run the pending work of the reactor."""
        self._memory.settle()
        return False

    def pass_time(self, seconds: float) -> None:
        """Advance the clock."""
        self._memory.advance(seconds)


class WebTlsTransport(WebTransport):
    """A GreenWSGIResource of twisted.web in memory, over HTTP/1.1 and TLS."""

    scheme = "https"

    def factory_of(self, site: Site) -> object:
        """Return the factory of the protocols."""
        factory: Any = super().factory_of(site)
        return TLSMemoryBIOFactory(TLS_OPTIONS, False, factory, clock=self.reactor)

    def connect(self, slow: bool) -> Link:
        """Return a new connection."""
        return TlsLink(super().connect(slow))


class WebHttp2Transport(WebTransport):
    """A GreenWSGIResource of twisted.web in memory, over HTTP/2."""

    connection_class = Http2Connection
    version = "HTTP/2"

    def factory_of(self, site: Site) -> object:
        """Return the factory of the protocols."""
        return _Http2Factory(site)


class WebTlsHttp2Transport(WebTlsTransport, WebHttp2Transport):
    """A GreenWSGIResource of twisted.web in memory, over HTTP/2 and TLS."""


class _Http2Channel(H2Connection):
    def connectionMade(self) -> None:
        # As in twisted.web's channel after TLS has negotiated HTTP/2.
        transport: Any = self.transport
        transport.registerProducer(self, True)
        super().connectionMade()


class _Http2Factory(Factory):
    """HTTP/2 with prior knowledge, without the TLS negotiation of twisted.web."""

    noisy = False

    def __init__(self, site: Site) -> None:
        self._site = site

    def buildProtocol(self, addr: Any) -> Any:
        """Return an HTTP/2 connection set up as in twisted.web."""
        site: Any = self._site
        channel: Any = _Http2Channel(site.reactor)
        made = site.buildProtocol(addr)
        channel.requestFactory = made.requestFactory
        channel.site = site
        channel.factory = site
        channel.timeOut = None
        channel.callLater = site.reactor.callLater
        return channel


TRANSPORTS: dict[str, type[Server]] = {
    "Http2": Http2Transport,
    "Memory": MemoryTransport,
    "SocketHttp2": SocketHttp2Transport,
    "Sockets": SocketTransport,
    "Threads": ThreadsTransport,
    "Tls": TlsTransport,
    "TlsHttp2": TlsHttp2Transport,
    "TwistedTls": TwistedTlsTransport,
    "TwistedTlsHttp2": TwistedTlsHttp2Transport,
    "WebHttp1": WebTransport,
    "WebHttp2": WebHttp2Transport,
    "WebTlsHttp1": WebTlsTransport,
    "WebTlsHttp2": WebTlsHttp2Transport,
}

#: Names of the transports that speak HTTP/1.1.
HTTP1 = [name for name, server in TRANSPORTS.items() if server.version == "HTTP/1.1"]
#: Names of the transports that speak HTTP/2.
HTTP2 = [name for name in TRANSPORTS if name not in HTTP1]
#: Names of the transports that run the application before the whole request body.
STREAMING = [name for name, server in TRANSPORTS.items() if server.streams_bodies]
#: Names of the transports of twisted.web.
WEB = [name for name, server in TRANSPORTS.items() if issubclass(server, WebTransport)]
#: Names of our own transports.
OWN = [name for name in TRANSPORTS if name not in WEB]
#: Names of our own transports that speak HTTP/1.1.
OWN_HTTP1 = [name for name in OWN if name in HTTP1]


class TransportCase(SynchronousTestCase):
    """A case with servers over one transport, their records and their log.

    At its end all clients disconnect; then no request, task or delayed call
    may be left.

    Attributes:
        transport: the kind of server that `serve` makes.
        records: the records of all exchanges, in order.
    """

    transport: type[Server]

    def setUp(self) -> None:
        """Collect log events and records."""
        self.events: list[LogEvent] = []
        self.records: list[ExchangeRecord] = []
        self._servers: list[Server] = []
        self.addCleanup(self._check_leftovers)
        observer: ILogObserver = self.events.append  # type: ignore[assignment]
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def serve(
        self, app: App, *, observers: Sequence[Observer] | None = None, **settings: Any
    ) -> Server:
        """Return a server that fails the test if it leaves anything behind."""
        kept = [self.records.append] if observers is None else observers
        server = self.transport(app, kept, settings)
        self._servers.append(server)
        return server

    def ask(self, app: App, method: str = "GET", **settings: Any) -> Reply:
        """Return the reply to one request to a new server."""
        return self.serve(app, **settings).begin(method)

    def _check_leftovers(self) -> None:
        # All servers first: those on sockets share a reactor.
        for server in self._servers:
            for connection in server.connections:
                connection.link.disconnect()
            server.settle()
            server.tear_down()
        left: list[object] = []
        for server in self._servers:
            server.settle()
            left += [task for task in server.app.tasks if not task.done]
            left += server.app.requests()
            for call in server.reactor.getDelayedCalls():
                left.append(call)
                call.cancel()
        if left:
            raise AssertionError(f"these were left behind: {left}")
        for server in self._servers:
            for connection in server.connections:
                stray = connection.stray[:50]
                if stray or "malformed" in [each.state for each in connection.replies]:
                    raise AssertionError(f"{connection.replies!r} {stray!r}")

    # Log events.

    def errors(self) -> list[str]:
        """Return the lines of level error logged since the last call.

        Also flushes logged tracebacks, which would make trial fail the test.
        """
        events, self.events[:] = list(self.events), []
        self.flushLoggedErrors()
        return [
            formatEvent(event)
            for event in events
            if event.get("log_level") in (LogLevel.error, LogLevel.critical)
        ]

    def outcomes(self) -> list[tuple[int, str]]:
        """Return status and outcome of each exchange."""
        return [(record.status, record.outcome) for record in self.records]

    # Assertions about replies.

    def assert_complete(
        self, reply: Reply, body: bytes | None = None, status: int = 200
    ) -> None:
        """Fail unless the response is complete."""
        self.assertEqual((reply.status, reply.state), (status, "complete"), repr(reply))
        if body is not None:
            self.assertEqual(reply.body, body)

    def assert_cut(self, reply: Reply, body: bytes | None = None) -> None:
        """Fail unless the client detected a truncated response."""
        self.assertEqual(reply.state, "cut", repr(reply))
        if body is not None:
            self.assertEqual(reply.body, body)

    def assert_stopped(self, stop: Stop, after: float) -> None:
        """Fail unless the server stops after `seconds`, or slightly later."""
        self.assertIsNotNone(stop.after)
        assert stop.after is not None
        self.assertTrue(after <= stop.after <= after + 2 * TICK, stop.after)


if TYPE_CHECKING:
    Cases = TransportCase
else:
    #: Base of the cases of a topic; `on_every_transport` turns them into tests.
    Cases = object


def on_every_transport(
    *topics: type, only: Iterable[str] = TRANSPORTS
) -> dict[str, type[TransportCase]]:
    """Return a test class for each topic and transport, by name.

    Args:
        topics: classes of cases, named `<Topic>Cases`.
        only: names of the transports, all by default.
    """
    made: dict[str, type[TransportCase]] = {}
    for cases in topics:
        for name in only:
            test_name = cases.__name__.replace("Cases", f"Over{name}Tests")
            made[test_name] = type(
                test_name,
                (cases, TransportCase),
                {
                    "__module__": cases.__module__,
                    "__doc__": cases.__doc__,
                    "transport": TRANSPORTS[name],
                },
            )
    return made
