"""Shutdown of a site: requests in progress are finished, and it always ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from txgreenwsgi import Cancelled, NotInGreenlet
from txgreenwsgi.testing import MemoryClient

from .application import TEXT, application
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start
    from .wire import App


class ClosingClient(MemoryClient):
    """A client that closes the connection when it has read the server's end of it."""

    def settle(self) -> None:
        """Let the server do all that is possible now, then react to it."""
        super().settle()
        socket = self.socket
        if self.closed and not socket.to_client and not socket.client_closed:
            self.end()


class ClosingClients:
    """Connects clients that close their connections, in place of a server's."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def __call__(self, room: float = float("inf")) -> MemoryClient:
        """Open a connection."""
        client = ClosingClient(self._server, room)
        self._server.clients.append(client)
        return client


class StopTests(WireTestCase):
    """`GreenSite.stop`, which the service calls after it has closed its ports."""

    def setUp(self) -> None:
        """Create lists for the events that applications notice, and for the end."""
        super().setUp()
        self.noticed: list[object] = []
        self.ended: list[float] = []

    def serve(self, *args: Any, **keywords: Any) -> MemoryServer:
        """Return a server whose clients close their connections."""
        server = super().serve(*args, **keywords)
        as_any: Any = server
        as_any.connect = ClosingClients(server)
        return server

    def stop(self, server: MemoryServer, grace: float | None = None) -> None:
        """Stop the server, and record when that is complete."""

        def end(_: None) -> None:
            self.ended.append(server.reactor.seconds())

        server.site.stop(grace).addCallback(end)
        server.settle()

    def test_nothing_to_do(self) -> None:
        """Without connections, the stop completes at once."""
        server = self.serve(application)
        self.stop(server)
        self.assertEqual(self.ended, [0])

    def test_listened_on_again(self) -> None:
        """A stopped site can serve again."""
        server = self.serve(application)
        server.site.doStart()
        self.stop(server)
        server.site.doStop()
        server.site.doStart()
        client = server.connect()
        for _ in range(2):
            client.send(get("/"))
            server.advance(1)
        self.assertEqual([each.status for each in client.responses()], [200, 200])
        self.assertFalse(client.closed)

    def test_idle_connections(self) -> None:
        """Idle connections close after drain_idle, half of them first."""
        server = self.serve(application)
        fresh, used = server.connect(), server.connect()
        used.send(get("/"))
        server.advance(5)
        self.stop(server)
        server.advance(1.75)
        self.assertEqual([fresh.closed, used.closed], [False, False])
        server.advance(0.25)
        self.assertEqual([fresh.closed, used.closed], [True, True])
        self.assertEqual([fresh.reset, used.reset], [False, False])
        self.assertEqual(self.ended, [7])

    def test_no_drain(self) -> None:
        """With drain_idle=0 idle connections close at once."""
        server = self.serve(application, drain_idle=0)
        fresh, used = server.connect(), server.connect()
        used.send(get("/"))
        self.stop(server)
        self.assertEqual([fresh.closed, used.closed], [True, True])
        self.assertEqual(self.ended, [0])

    def test_grace_shorter_than_the_drain(self) -> None:
        """Idle connections close at the end of the grace period at the latest."""
        server = self.serve(application, drain_idle=10, graceful_timeout=1)
        client = server.connect()
        self.stop(server)
        server.advance(1)
        self.assertTrue(client.closed)
        self.assertEqual(self.ended, [1])

    def test_second_signal(self) -> None:
        """The end of the grace period also ends the drain."""
        server = self.serve(application)
        client = server.connect()
        self.stop(server)
        server.advance(1)
        server.site.cut_short()
        server.settle()
        self.assertTrue(client.closed)
        self.assertEqual(self.ended, [1])

    def test_idle_client_that_does_not_close(self) -> None:
        """A client that ignores the half-close is closed after a second, not reset.

        Its input is discarded meanwhile: no request is served after the half-close.
        """
        server = self.recorded(application)
        client = MemoryClient(server, float("inf"))
        server.clients.append(client)
        self.stop(server)
        server.advance(2)
        self.assertTrue(client.closed)
        client.send(get("/"))
        self.assertEqual(self.ended, [])
        server.advance(1)
        self.assertEqual(self.ended, [3])
        self.assertFalse(client.reset)
        self.assertEqual(client.received, b"")
        self.assertEqual(self.records, [])

    def test_request_in_the_drain(self) -> None:
        """A request on an idle connection is answered with `Connection: close`."""
        server = self.serve(application)
        fresh, used = server.connect(), server.connect()
        used.send(get("/"))
        self.stop(server)
        server.advance(1.75)
        for client in (fresh, used):
            client.send(get("/"))
        server.settle()
        for client in (fresh, used):
            last = client.responses()[-1]
            self.assertEqual((last.status, last.header("Connection")), (200, "close"))
        self.assertEqual(self.ended, [1.75])

    def test_http_1_0(self) -> None:
        """A promise to an HTTP/1.0 client is kept, and not repeated."""
        server = self.serve(application)
        client = server.connect()
        request = get("/", "Connection: keep-alive", version="HTTP/1.0")
        client.send(request)
        self.stop(server)
        server.advance(1)
        client.send(request)
        server.settle()
        self.assertEqual(
            [each.header("Connection") for each in client.responses()],
            ["keep-alive", "close"],
        )
        self.assertEqual(self.ended, [1])

    def test_connection_made_in_the_drain(self) -> None:
        """A connection accepted after the stop has its own time."""
        server = self.serve(application)
        server.connect()
        self.stop(server)
        server.advance(1)
        late = server.connect()
        server.advance(1.5)
        self.assertFalse(late.closed)
        late.send(get("/"))
        server.settle()
        self.assertEqual(self.only(late).header("Connection"), "close")
        self.assertEqual(self.ended, [2.5])

    def test_resume_in_the_drain(self) -> None:
        """A server that serves again keeps its idle connections."""
        server = self.serve(application)
        client = server.connect()
        self.stop(server)
        server.advance(1)
        server.site.server.resume()
        server.advance(5)
        client.send(get("/"))
        self.assertIsNone(self.only(client).header("Connection"))
        self.assertFalse(client.closed)

    def test_stopped_again_in_the_drain(self) -> None:
        """A second stop does not extend the drain."""
        server = self.serve(application)
        server.connect()
        self.stop(server)
        server.advance(1)
        self.stop(server)
        server.advance(1)
        self.assertEqual(self.ended, [2, 2])

    def test_stall_before_the_drain(self) -> None:
        """An idle client has its time after a stall of the reactor."""
        server = self.serve(application)
        client = server.connect()
        self.stop(server)
        server.hub.detects_stalls = True
        self.addCleanup(setattr, server.hub, "detects_stalls", False)
        server.reactor.rightNow += 20
        server.settle()
        self.assertFalse(client.closed)
        client.send(get("/"))
        server.settle()
        self.assertEqual(self.only(client).status, 200)

    def test_request_in_flight(self) -> None:
        """A running request is answered with `Connection: close`, then all ends."""
        server = self.serve(application)
        client = server.connect()
        client.send(get("/sleep?seconds=3"))
        self.stop(server)
        server.advance(2)
        self.assertEqual(self.ended, [])
        server.advance(1)
        response = self.only(client)
        self.assertEqual(response.body, b"slept\n")
        self.assertEqual(response.header("Connection"), "close")
        self.assertTrue(client.closed)
        self.assertEqual(self.ended, [3])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_response_that_has_begun(self) -> None:
        """The drain follows a response whose head has promised persistence."""
        server = self.serve(application)
        client = server.connect()
        client.send(get("/stream?count=3&pause=1"))
        server.advance(1)
        self.stop(server)
        server.advance(1)
        server.advance(1)
        self.assertEqual(self.only(client).body, b"AAAABBBBCCCC")
        self.assertIsNone(self.only(client).header("Connection"))
        server.advance(1.75)
        self.assertFalse(client.closed)
        client.send(get("/"))
        server.settle()
        last = client.responses()[-1]
        self.assertEqual((last.status, last.header("Connection")), (200, "close"))
        self.assertTrue(client.closed)
        self.assertEqual(self.ended, [4.75])

    def test_pipelined_requests(self) -> None:
        """Received requests are answered, the last with `Connection: close`."""
        server = self.serve(application)
        client = server.connect()
        client.send(get("/sleep") + get("/") + get("/blocks"))
        self.stop(server)
        server.advance(1)
        responses = client.responses()
        self.assertEqual([each.status for each in responses], [200] * 3)
        self.assertEqual(
            [each.header("Connection") for each in responses], [None, None, "close"]
        )
        self.assertEqual(self.ended, [1])

    def test_request_that_has_come_unread(self) -> None:
        """A request that is still in the kernel's buffer is answered."""
        server = self.serve(application)
        client = server.connect()
        client.socket.to_server += get("/")
        self.stop(server)
        self.assertEqual(self.only(client).body, b"hello\n")
        self.assertEqual(self.only(client).header("Connection"), "close")
        self.assertEqual(self.ended, [0])

    def test_half_a_head(self) -> None:
        """A request whose head is incomplete is waited for."""
        server = self.serve(application)
        client = server.connect()
        client.send(get("/")[:9])
        self.stop(server)
        server.advance(2)
        self.assertFalse(client.closed)
        client.send(get("/")[9:])
        self.assertEqual(self.only(client).status, 200)
        self.assertEqual(self.ended, [2])

    def test_bytes_that_are_no_request(self) -> None:
        """An empty line, which is no request, keeps no connection open."""
        server = self.serve(application)
        client = server.connect()
        client.socket.to_server += b"\r\n"
        self.stop(server)
        server.advance(2)
        self.assertTrue(client.closed)
        self.assertEqual(self.ended, [2])

    def test_body_that_is_drained(self) -> None:
        """The unread rest of a body is drained before the close."""
        server = self.serve(application)
        client = server.connect()
        client.send(get("/unread", "Content-Length: 9", method="POST"))
        self.stop(server)
        client.send(b"012345678")
        self.assertFalse(client.closed)
        server.advance(2)
        self.assertTrue(client.closed)
        self.assertEqual(self.ended, [2])

    def test_queued_requests(self) -> None:
        """Queued requests are started in their turn."""
        server = self.serve(application, max_in_flight=1)
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.send(get("/sleep"))
        self.stop(server)
        for _ in range(3):
            server.advance(1)
        self.assertEqual([self.only(client).status for client in clients], [200] * 3)
        self.assertEqual(self.ended, [3])

    def wait_on(self, environ: Environ, ignored: type[BaseException]) -> None:
        """Sleep a second, in spite of interruptions."""
        try:
            environ["txgreenwsgi.sleep"](1)
        except ignored:
            self.noticed.append("interrupted")

    def waiting(self, *, after: float = 0, shielded: float = 0) -> App:
        """Return an application that waits for ever; `after` seconds if cancelled."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/begun":
                start("200 OK", TEXT)(b"begun")
            try:
                if shielded:
                    with environ["txgreenwsgi.shield"]():
                        environ["txgreenwsgi.sleep"](shielded)
                environ["txgreenwsgi.suspend"]().wait()
            except Cancelled:
                self.noticed.append("interrupted")
                if after:
                    environ["txgreenwsgi.sleep"](after)
                self.noticed.append("done")
                raise
            return []

        return app

    def test_grace_is_over(self) -> None:
        """After --graceful-timeout, requests are cancelled: 503, or a cut body."""
        server = self.recorded(self.waiting(), graceful_timeout=5)
        silent, begun = server.connect(), server.connect()
        silent.send(get("/silent"))
        begun.send(get("/begun"))
        self.stop(server)
        server.advance(4)
        self.assertEqual(self.noticed, [])
        server.advance(1)
        self.assertEqual(self.noticed, ["interrupted", "done"] * 2)
        self.assertEqual(self.only(silent).status, 503)
        self.assertTrue(begun.closed)
        self.assertTrue(begun.received.endswith(b"5\r\nbegun\r\n"))
        self.assertEqual(self.ended, [5])
        self.assertEqual(
            sorted(self.outcomes()), [(200, "cancelled"), (503, "cancelled")]
        )
        for target in ("/silent", "/begun"):
            self.assert_logged("grace period over", f"GET {target} (request ")

    def test_no_grace(self) -> None:
        """With a grace period of 0, requests are cancelled at once."""
        server = self.serve(self.waiting(), graceful_timeout=0)
        server.connect().send(get("/"))
        self.stop(server)
        self.assertEqual(self.noticed, ["interrupted", "done"])
        self.assertEqual(self.ended, [0])

    def test_own_grace(self) -> None:
        """The caller of stop() may give another grace period than the settings."""
        server = self.serve(self.waiting())
        server.connect().send(get("/"))
        self.stop(server, 2)
        server.advance(2)
        self.assertEqual(self.ended, [2])

    def test_cut_short(self) -> None:
        """The grace period can be ended, as a second signal does."""
        server = self.serve(self.waiting())
        server.connect().send(get("/"))
        server.site.cut_short()  # a no-op before the stop
        self.stop(server)
        server.advance(3)
        server.site.cut_short()
        server.settle()
        self.assertEqual(self.ended, [3])

    def test_stopped_twice(self) -> None:
        """A second stop changes nothing; both Deferreds fire."""
        server = self.serve(self.waiting(), graceful_timeout=5)
        server.connect().send(get("/"))
        self.stop(server)
        server.advance(3)
        self.stop(server, 100)
        server.advance(2)
        self.assertEqual(self.ended, [5, 5])

    def test_clean_up_that_waits(self) -> None:
        """A cancelled request has a second to clean up."""
        server = self.serve(self.waiting(after=0.5), graceful_timeout=5)
        server.connect().send(get("/"))
        self.stop(server)
        server.advance(5)
        self.assertEqual(self.noticed, ["interrupted"])
        server.advance(0.5)
        self.assertEqual(self.noticed, ["interrupted", "done"])
        self.assertEqual(self.ended, [5.5])

    def test_clean_up_that_takes_too_long(self) -> None:
        """After that second its task is killed; its `finally` blocks run."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                while True:
                    self.wait_on(environ, Cancelled)
            finally:
                self.noticed.append("finally")
                self.assertRaises(NotInGreenlet, environ["txgreenwsgi.sleep"], 1)

        server = self.serve(app, graceful_timeout=5)
        client = server.connect()
        client.send(get("/stubborn"))
        self.stop(server)
        for _ in range(6):
            server.advance(1)
        self.assertEqual(self.noticed, ["interrupted", "finally"])
        self.assertEqual(self.ended, [6])
        self.assertTrue(client.closed)
        self.assert_logged(
            "GET /stubborn (request ", "did not end after its cancellation"
        )
        self.flushLoggedErrors()

    def test_shield(self) -> None:
        """A shield holds during that second, and no longer."""
        server = self.serve(self.waiting(shielded=100), graceful_timeout=5)
        server.connect().send(get("/"))
        self.stop(server)
        for _ in range(6):
            server.advance(1)
        self.assertEqual(self.ended, [6])
        self.assertEqual(self.noticed, [])

    def test_what_ignores_everything(self) -> None:
        """A task that survives its kill does not keep the server running."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            while True:
                self.wait_on(environ, BaseException)

        server = self.recorded(app, graceful_timeout=5)
        server.connect().send(get("/"))
        self.stop(server)
        for _ in range(7):
            server.advance(1)
        self.assertEqual(self.ended, [6])
        self.assertEqual(server.site.server.table.exchanges, set())
        self.assertTrue(self.noticed)
        server.hub.tasks.clear()

    def test_client_is_gone(self) -> None:
        """A request that continues without its client is cancelled too."""
        server = self.recorded(self.waiting(after=0.5), graceful_timeout=5)
        client = server.connect()
        client.send(get("/"))
        client.disconnect()
        self.stop(server)
        server.advance(5)
        self.assertEqual(self.noticed, ["interrupted"])
        server.advance(0.5)
        self.assertEqual(self.noticed, ["interrupted", "done"])
        self.assertEqual(self.ended, [5.5])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.flushLoggedErrors()

    def test_close_that_never_ends(self) -> None:
        """A close() that waits for ever is cancelled too."""

        class Stuck:
            def __init__(stuck, environ: Environ) -> None:  # noqa: N805
                stuck.environ = environ

            def __iter__(stuck) -> Iterator[bytes]:  # noqa: N805
                return iter([b"whole"])

            def close(stuck) -> None:  # noqa: N805
                stuck.environ["txgreenwsgi.wait"](Deferred())

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return Stuck(environ)

        server = self.serve(app, graceful_timeout=5)
        client = server.connect()
        client.send(get("/"))
        self.stop(server)
        server.advance(5)
        self.assertEqual(self.only(client).body, b"whole")
        self.assertEqual(self.ended, [5])
        self.assertEqual(len(self.flushLoggedErrors(Cancelled)), 1)

    def test_queue_at_the_end_of_the_grace(self) -> None:
        """Requests still in the queue get 503 and never start."""
        server = self.recorded(
            self.waiting(after=0.5), graceful_timeout=5, max_in_flight=1
        )
        first, second = server.connect(), server.connect()
        first.send(get("/"))
        second.send(get("/"))
        self.stop(server)
        server.advance(5)
        self.assertEqual(self.only(second).status, 503)
        self.assertEqual(self.only(second).body, b"the server is stopping\n")
        server.advance(0.5)
        self.assertEqual(self.noticed, ["interrupted", "done"])
        self.assertEqual(self.ended, [5.5])

    def test_client_that_neither_reads_nor_leaves(self) -> None:
        """A connection that does not close is aborted."""
        server = self.serve(application, graceful_timeout=5)
        client = server.connect(room=100)
        client.send(get("/stream?size=100000"))
        self.stop(server)
        for _ in range(6):
            server.advance(1)
        self.assertEqual(self.ended, [5])
        self.assertTrue(client.reset)

    def test_lingering_connection(self) -> None:
        """A lingering connection is aborted."""
        server = self.serve(application, graceful_timeout=0.5)
        client = MemoryClient(server, float("inf"))
        server.clients.append(client)
        client.send(get("/unread", "Content-Length: 1000000", method="POST"))
        self.stop(server)
        server.advance(0.5)
        self.assertEqual(self.ended, [])
        server.advance(1)
        self.assertEqual(self.ended, [1.5])

    def test_observers(self) -> None:
        """Observers get a record of every request before the stop completes."""
        counts: list[int] = []

        def note(record: Any) -> None:
            counts.append(len(self.ended))

        server = self.serve(self.waiting(), observers=[note], graceful_timeout=5)
        for _ in range(3):
            server.connect().send(get("/"))
        self.stop(server)
        server.advance(5)
        self.assertEqual(counts, [0, 0, 0])
        self.assertEqual(self.ended, [5])
