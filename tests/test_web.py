"""`GreenWSGIResource`: an application as a resource of twisted.web, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

import txgreenwsgi
from txgreenwsgi import ClientDisconnected, GreenWSGIResource, RequestTimeout
from txgreenwsgi.testing import MemoryClient, MemoryReactor, MemoryServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Environ = dict[str, Any]
    StartResponse = Callable[..., Any]

TEXT = [("Content-Type", "text/plain")]


def shown(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Return the environ and the body of the request."""
    body = environ["wsgi.input"].read(-1)
    start_response("200 OK", [*TEXT, ("X-Script", environ["SCRIPT_NAME"])])
    return [
        b"|".join(
            [
                environ["REQUEST_METHOD"].encode(),
                environ["PATH_INFO"].encode("latin-1"),
                environ["QUERY_STRING"].encode(),
                body,
            ]
        )
    ]


class TreeServer(MemoryServer):
    """twisted.web's Site in memory, with a resource at its root."""

    def __init__(self, root: Resource, resource: GreenWSGIResource) -> None:
        super().__init__(shown)
        self.reactor = MemoryReactor()
        self.resource = resource
        self.tree = Site(root, reactor=self.reactor)

    def connect(self, room: float = float("inf")) -> MemoryClient:
        """Return a connection to twisted.web instead of the server's own channel."""
        ours, self.site = self.site, self.tree  # type: ignore[assignment]
        try:
            return super().connect(room)
        finally:
            self.site = ours


def sleeping(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Respond after five seconds."""
    txgreenwsgi.sleep(5)
    start_response("200 OK", TEXT)
    return [b"slept"]


class ResourceTests(SynchronousTestCase):
    """`GreenWSGIResource` in a resource tree."""

    def serve(
        self, app: Any, root: Resource | None = None, **settings: Any
    ) -> TreeServer:
        """Return a server with the application at the root, or where a test puts it."""
        reactor = MemoryReactor()
        resource = GreenWSGIResource(app, reactor=reactor, **settings)
        server = TreeServer(root or resource, resource)
        server.reactor = reactor
        server.tree = Site(root or resource, reactor=reactor)
        if root is not None:
            root.putChild(b"app", resource)
        self.addCleanup(self.check, server)
        return server

    def check(self, server: TreeServer) -> None:
        """Fail if anything is left after the clients have left."""
        server.close()
        self.assertEqual(server.tasks, [])
        self.assertEqual(server.resource.application_server.table.exchanges, set())

    def exchange(self, server: TreeServer, request: bytes) -> MemoryClient:
        """Return a connection on which `request` was sent."""
        client = server.connect()
        client.send(request)
        server.advance(0)
        return client

    def test_reading_after_the_end(self) -> None:
        """A read after the end of the request raises: twisted.web dropped the body."""
        told: list[object] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            body = environ["wsgi.input"]

            class Answer:
                def __iter__(self) -> Iterator[bytes]:
                    yield body.read(3 if environ["PATH_INFO"] == "/read" else 0) or b"-"

                def close(self) -> None:
                    try:
                        told.append(body.read())
                    except ValueError as error:
                        told.append(str(error))

            start_response("200 OK", TEXT)
            return Answer()  # type: ignore[return-value]

        server = self.serve(app)
        for path in (b"/read", b"/"):
            head = (
                b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
            )
            self.exchange(server, head + b"abc")
        self.assertEqual(told, [b"", "wsgi.input was read after the request had ended"])

    def test_stop(self) -> None:
        """A stop waits for the requests in flight, and no longer."""
        server = self.serve(sleeping)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        stopped = server.resource.stop()
        server.advance(4)
        self.assertNoResult(stopped)
        server.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(client.responses()[0].body, b"slept")

    def test_stop_with_unread_input(self) -> None:
        """A request that has arrived on an idle connection is served, then closed."""
        server = self.serve(shown)
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        client = self.exchange(server, request)
        client.socket.to_server += request
        stopped = server.resource.stop()
        server.advance(0.5)
        self.successResultOf(stopped)
        self.assertEqual([r.status for r in client.responses()], [200, 200])
        self.assertTrue(client.closed)

    def test_stop_with_a_client_that_is_gone(self) -> None:
        """A request that continues without its client is cancelled too."""
        server = self.serve(sleeping, graceful_timeout=1)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.disconnect()
        stopped = server.resource.stop()
        server.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(server.tasks, [])

    def test_at_the_root(self) -> None:
        """At the root, PATH_INFO is the whole path."""
        for app, target, expected in [
            (shown, "/", b"GET|/||"),
            (validator(shown), "/a/b%20c?d=e", b"GET|/a/b c|d=e|"),
        ]:
            server = self.serve(app)
            client = self.exchange(
                server, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            [response] = client.responses()
            self.assertEqual(response.body, expected)
            self.assertEqual(response.header("X-Script"), "")
            # The validator hides the number of blocks.
            self.assertEqual(
                response.header("Content-Length"),
                str(len(expected)) if app is shown else None,
            )

    def test_below_the_root(self) -> None:
        """Elsewhere in the tree, SCRIPT_NAME is the path of the resource."""
        server = self.serve(shown, Resource())
        for target, expected in [("/app", b"GET|||"), ("/app/x/y", b"GET|/x/y||")]:
            client = self.exchange(
                server, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            [response] = client.responses()
            self.assertEqual(response.body, expected)
            self.assertEqual(response.header("X-Script"), "/app")

    def test_children_beside_a_root_application(self) -> None:
        """Children of the resource take precedence over the application."""
        server = self.serve(shown)
        server.resource.putChild(b"data", Data(b"static", "text/plain"))
        bodies = [
            self.exchange(server, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
            .responses()[0]
            .body
            for target in (b"/data", b"/other")
        ]
        self.assertEqual(bodies, [b"static", b"GET|/other||"])

    def test_body(self) -> None:
        """The body that twisted.web has read is wsgi.input, chunked or not."""
        server = self.serve(shown)
        for framing in (
            b"Content-Length: 5\r\n\r\nhello",
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ):
            client = self.exchange(server, b"POST / HTTP/1.1\r\nHost: x\r\n" + framing)
            self.assertEqual(client.responses()[0].body, b"POST|/||hello")

    def test_wait(self) -> None:
        """While an application waits for a Deferred, twisted.web serves others."""
        deferred: Deferred[bytes] = Deferred()

        def waits(environ: Environ, start_response: StartResponse) -> list[bytes]:
            start_response("200 OK", TEXT)
            return [txgreenwsgi.wait(deferred)]

        server = self.serve(waits)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(client.received, b"")
        [request] = server.resource.requests()
        self.assertEqual((request.method, request.state), ("GET", "parked"))
        deferred.callback(b"fired")
        server.settle()
        self.assertEqual(client.responses()[0].body, b"fired")

    def test_each_block_is_handed_over(self) -> None:
        """A block reaches the client before the next one is computed."""
        seen: list[bytes] = []

        def streams(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            yield b"one"
            seen.append(client.received)
            yield b"two"

        server = self.serve(streams)
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.settle()
        self.assertIn(b"one", seen[0])
        self.assertEqual(client.responses()[0].body, b"onetwo")

    def test_back_pressure(self) -> None:
        """A client that does not read parks the application, not the server."""
        taken: list[int] = []

        def endless(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            for number in range(1000):
                taken.append(number)
                yield b"x" * 10000

        server = self.serve(endless)
        client = server.connect(room=50000)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertLess(len(taken), 40)
        client.disconnect()
        self.assertEqual(server.tasks, [])

    def test_failure_before_the_head(self) -> None:
        """A failure gets a plain 500; the traceback is in the log only."""

        def fails(environ: Environ, start_response: StartResponse) -> list[bytes]:
            raise ZeroDivisionError("secret")

        server = self.serve(fails)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        [response] = client.responses()
        self.assertEqual(
            (response.status, response.body), (500, b"Internal Server Error\n")
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_display_tracebacks(self) -> None:
        """With display_tracebacks, the 500 contains the traceback."""

        def fails(environ: Environ, start_response: StartResponse) -> list[bytes]:
            raise ZeroDivisionError("told")

        server = self.serve(fails, display_tracebacks=True)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b"ZeroDivisionError: told", client.responses()[0].body)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_failure_after_the_head(self) -> None:
        """A failure after the head cuts the connection."""

        def fails(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            yield b"part"
            raise ZeroDivisionError

        server = self.serve(fails)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.settle()
        self.assertTrue(client.closed)
        self.assertNotIn(b"0\r\n\r\n", client.received)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_body_longer_than_its_length(self) -> None:
        """A body is cut at its Content-Length; the connection persists."""

        def long(environ: Environ, start_response: StartResponse) -> list[bytes]:
            start_response("200 OK", [*TEXT, ("Content-Length", "3")])
            return [b"abc", b"def"]

        server = self.serve(long)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        server.settle()
        self.assertEqual([r.body for r in client.responses()], [b"abc", b"abc"])

    def test_body_shorter_than_its_length(self) -> None:
        """A body shorter than its Content-Length cuts the connection."""

        def short(environ: Environ, start_response: StartResponse) -> list[bytes]:
            start_response("200 OK", [*TEXT, ("Content-Length", "30")])
            return [b"abc"]

        server = self.serve(short)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.settle()
        self.assertTrue(client.closed)

    def test_head_and_204(self) -> None:
        """Responses to HEAD, and 204, have no body."""

        def quiet(environ: Environ, start_response: StartResponse) -> list[bytes]:
            start_response(
                "204 No Content" if environ["PATH_INFO"] == "/204" else "200 OK", []
            )
            return [b"body"]

        server = self.serve(quiet)
        for request in (b"HEAD /", b"GET /204"):
            client = self.exchange(server, request + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(client.received.endswith(b"\r\n\r\n"))

    def test_disconnect(self) -> None:
        """A parked generator is closed at once when its client disconnects."""
        ended: list[type[BaseException] | None] = []

        def naps(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            yield b"first"
            try:
                txgreenwsgi.sleep(3600)
            except ClientDisconnected as error:
                ended.append(type(error))
                raise

        server = self.serve(naps)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.settle()
        client.disconnect()
        self.assertEqual(ended, [ClientDisconnected])

    def test_request_timeout(self) -> None:
        """A request that takes too long gets 504."""
        ended: list[BaseException] = []

        def naps(environ: Environ, start_response: StartResponse) -> list[bytes]:
            try:
                txgreenwsgi.sleep(3600)
            except RequestTimeout as error:
                ended.append(error)
                raise
            return []

        server = self.serve(naps, request_timeout=5)
        client = self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.advance(5)
        self.assertEqual(client.responses()[0].status, 504)
        self.assertEqual(len(ended), 1)

    def test_places(self) -> None:
        """Requests beyond max_in_flight wait; those beyond the queue get 503."""

        def naps(environ: Environ, start_response: StartResponse) -> list[bytes]:
            txgreenwsgi.sleep(1)
            start_response("200 OK", TEXT)
            return [b"done"]

        server = self.serve(naps, max_in_flight=1, max_queued=1)
        clients = [
            self.exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(3)
        ]
        self.assertEqual(clients[2].responses()[0].status, 503)
        self.assertEqual(clients[2].responses()[0].header("Retry-After"), "1")
        server.advance(1)
        server.advance(1)
        self.assertEqual([c.responses()[0].status for c in clients[:2]], [200, 200])

    def test_hyphens_and_underscores(self) -> None:
        """X_Foo cannot replace X-Foo; Proxy does not become HTTP_PROXY."""
        seen: list[Environ] = []

        def keeps(environ: Environ, start_response: StartResponse) -> list[bytes]:
            seen.append(environ)
            return shown(environ, start_response)

        server = self.serve(keeps)
        self.exchange(
            server,
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Foo: real\r\nX_Foo: false\r\n"
            b"Proxy: evil\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
        )
        self.assertEqual(seen[0]["HTTP_X_FOO"], "real")
        self.assertNotIn("HTTP_PROXY", seen[0])
        self.assertEqual(seen[0]["HTTP_COOKIE"], "a=1; b=2")

    def test_not_an_application(self) -> None:
        """An object that is not callable is refused at construction."""
        self.assertRaises(TypeError, GreenWSGIResource, "app")

    def test_number_of_applications(self) -> None:
        """Any number of applications but one is refused with the correct call."""
        for args in ((), (shown, shown)):
            error = self.assertRaises(TypeError, GreenWSGIResource, *args)
            self.assertIn("GreenWSGIResource takes one application", str(error))
            self.assertIn("GreenWSGIResource(application, reactor=reactor)", str(error))

    def test_absolute_form(self) -> None:
        """A target in absolute form is reduced to its path (RFC 9112 section 3.2.2)."""
        server = self.serve(shown)
        client = self.exchange(
            server, b"GET http://other:81/a%20b?c HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        (response,) = client.responses()
        self.assertEqual(response.body, b"GET|/a b|c|")
        self.assertEqual(response.header("X-Script"), "")

    def test_invalid_absolute_form(self) -> None:
        """An absolute target without a valid host gets 400."""
        server = self.serve(shown)
        client = self.exchange(
            server, b"GET http://user@x/ HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        (response,) = client.responses()
        self.assertEqual(response.status, 400)
        self.assertIn(b"the target has no valid host", response.body)

    def test_unix_socket(self) -> None:
        """Behind a UNIX socket, the server's name and port are not empty."""
        ends: list[tuple[str, str, str]] = []

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            names = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")
            name, port, addr = (environ[key] for key in names)
            ends.append((name, port, addr))
            start_response("200 OK", TEXT)
            return [b"ok"]

        reactor = MemoryReactor()
        resource = GreenWSGIResource(app, reactor=reactor)
        channel = Site(resource, reactor=reactor).buildProtocol(None)
        address = UNIXAddress(b"/socket")
        transport = StringTransport(hostAddress=address, peerAddress=UNIXAddress(None))
        channel.makeConnection(transport)
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        reactor.settle()
        self.assertEqual(ends, [("localhost", "80", "")])
        channel.connectionLost(Failure(ConnectionDone()))

    def test_transport(self) -> None:
        """twisted.web's channel works on other transports."""
        reactor = MemoryReactor()
        resource = GreenWSGIResource(shown, reactor=reactor)
        channel = Site(resource, reactor=reactor).buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        reactor.settle()
        self.assertIn(b"GET|/x||", transport.value())
        channel.connectionLost(Failure(ConnectionDone()))
