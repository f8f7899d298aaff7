"""Events at the edges of a request: before it is complete, and after its end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from txgreenwsgi import Cancelled, ClientDisconnected, GreenSite, spawn

from .application import TEXT, Failure, application
from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .application import Environ, Start


class LateEventTests(WireTestCase):
    """Requests that overlap the events of their connection."""

    def test_head_that_begins_during_a_request(self) -> None:
        """The beginning of a head behind a request has header_timeout, then 408."""
        server = self.recorded(application, header_timeout=3, keep_alive=60)
        client = server.connect()
        client.send(get("/sleep?seconds=1"))
        client.send(b"GET / HTT")
        for _ in range(18):
            server.advance(0.25)
        self.assertEqual(
            [each.status for each in client.responses()], [200, 408], client.received
        )
        self.assertTrue(client.closed)

    def test_rest_of_a_head_that_began_during_a_request(self) -> None:
        """A head that begins behind a request may end after its response."""
        server = self.recorded(application)
        client = server.connect()
        client.send(get("/sleep?seconds=1"))
        client.send(get("/")[:9])
        server.advance(1)
        client.send(get("/")[9:])
        self.assertEqual([each.status for each in client.responses()], [200, 200])

    def test_no_keep_alive_for_an_expectation(self) -> None:
        """A request with Expect and its body in one piece closes as any other."""
        for fields in ([], ["Expect: 100-continue"]):
            client = self.connected(application, keep_alive=0)
            client.send(post("/echo", b"abc", *fields))
            response = self.only(client)
            self.assertEqual(response.body, b"abc")
            self.assertEqual(response.header("Connection"), "close")
            self.assertTrue(client.closed)

    def test_client_leaves_while_close_reads(self) -> None:
        """A read in close() ends with its client, also behind a broken response."""
        for length in ("1", "5", "0"):
            noticed: list[object] = []

            class Blocks:
                def __init__(self, environ: Environ) -> None:
                    self.environ = environ

                def __iter__(self) -> Iterator[bytes]:
                    return iter([b"x"])

                def close(self) -> None:
                    try:
                        self.environ["wsgi.input"].read()
                    except Exception as error:
                        noticed.append(type(error))  # noqa: B023 - called in this turn

            def app(
                environ: Environ,
                start: Start,
                length: str = length,
                blocks: type[Blocks] = Blocks,
            ) -> Iterable[bytes]:
                start("200 OK", [*TEXT, ("Content-Length", length)])
                return blocks(environ)

            server = self.recorded(app)
            client = server.connect()
            client.send(get("/", "Content-Length: 30", method="POST") + b"abc")
            client.disconnect()
            self.assertEqual(noticed, [ClientDisconnected], length)
            self.assertEqual(server.tasks, [])
        self.assertEqual(
            self.outcomes(), [(200, each) for each in ("finished", "error", "error")]
        )

    def test_read_after_the_answer_to_a_failure(self) -> None:
        """A task that reads after its request was answered 500 gets a ValueError."""
        for expect in ([], ["Expect: 100-continue"]):
            noticed: list[object] = []

            def app(
                environ: Environ, start: Start, noticed: list[object] = noticed
            ) -> Iterable[bytes]:
                def read() -> None:
                    try:
                        environ["wsgi.input"].read()
                    except Exception as error:
                        noticed.append(type(error))

                child = spawn(read)
                environ["txgreenwsgi.current_task"]().call_before_end(child.wait)
                raise Failure

            server = self.recorded(app, body_timeout=0)
            client = server.connect()
            client.send(get("/", "Content-Length: 30", *expect, method="POST"))
            server.settle()
            self.assertEqual(noticed, [ValueError])
            self.assertEqual(server.tasks, [])
            self.assertEqual(self.only(client).status, 500)
            self.flushLoggedErrors(Failure)

    def test_turn_during_a_send(self) -> None:
        """Two tasks that write a response to HEAD: one fails, neither is lost."""
        noticed: list[object] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            write = start("200 OK", [*TEXT, ("X-Long", "x" * 5000)])
            child = spawn(write, b"from a child")
            environ["txgreenwsgi.sleep"](1)
            try:
                for _ in range(3):
                    server.reactor.rightNow += 1  # as a computation would
                    write(b"more")
            except RuntimeError as error:
                noticed.append(str(error))
            child.wait()
            return iter([])

        server = self.recorded(app)
        client = server.connect(room=100)
        client.send(get("/", method="HEAD"))
        server.advance(1)
        while client.read():
            server.advance(1)
        self.assertEqual(len(noticed), 1)
        self.assertIn("at the same time", str(noticed[0]))
        self.assertEqual(self.outcomes(), [(200, "finished")])

    def test_write_during_a_send(self) -> None:
        """A block that was refused does not count as a part of the response."""
        noticed: list[object] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            write = start("200 OK", [*TEXT, ("Content-Length", "5010")])

            def write_too() -> None:
                try:
                    write(b"0123456789")
                except RuntimeError as error:
                    noticed.append(str(error))

            spawn(write_too)
            write(b"x" * 5000)
            return iter([])

        server = self.recorded(app)
        client = server.connect(room=1000)
        client.send(get("/"))
        server.advance(1)
        while client.read():
            server.advance(1)
        self.assertIn("at the same time", str(noticed))
        self.assertTrue(client.received.endswith(b"\r\n\r\n" + b"x" * 5000))
        self.assertTrue(client.closed)
        self.assert_logged("ended 10 bytes before its Content-Length")
        self.assertEqual(
            [(each.outcome, each.bytes_sent) for each in self.records],
            [("error", 5000)],
        )

    def test_response_during_a_100_continue(self) -> None:
        """A response cannot begin in the middle of an interim one."""
        noticed: list[object] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            spawn(environ["wsgi.input"].read)
            environ["txgreenwsgi.sleep"](1)
            write = start("200 OK", TEXT)
            for _ in range(2):
                try:
                    write(b"abc")
                except RuntimeError as error:  # noqa: PERF203
                    noticed.append(str(error))
            raise Failure

        server = self.recorded(app)
        client = server.connect(room=10)
        client.send(
            get("/", "Content-Length: 30", "Expect: 100-continue", method="POST")
        )
        server.advance(1)
        self.flushLoggedErrors(Failure, ValueError)
        self.assertEqual(len(noticed), 2)
        while client.read():
            server.advance(1)
        self.assertEqual(client.received, b"HTTP/1.1 1")
        self.assertTrue(client.reset)

    def test_killed(self) -> None:
        """A request that begins after the grace period is recorded as cancelled."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            with contextlib.suppress(Cancelled):
                environ["txgreenwsgi.sleep"](9)
            environ["txgreenwsgi.sleep"](9)
            return []

        server = self.recorded(app)
        server.connect().send(get("/"))
        server.site.stop(0)
        server.advance(0)
        server.connect().send(get("/"))
        server.advance(1)
        self.assertEqual(self.outcomes(), [(0, "cancelled")] * 2)

    def test_served_again_during_a_stop(self) -> None:
        """A server that starts again during a stop cuts no request."""
        stopped: list[object] = []
        server = self.recorded(application)
        client = server.connect()
        client.send(get("/sleep?seconds=9"))
        server.site.stop(2).addCallback(stopped.append)
        server.site.startFactory()
        self.assertEqual(stopped, [None])
        later = server.connect()
        later.send(get("/sleep?seconds=9"))
        for _ in range(10):
            server.advance(1)
        for each in (client, later):
            self.assertEqual(self.only(each).status, 200)
        self.assertFalse(later.closed)

    def test_access_log_after_a_stop_was_called_off(self) -> None:
        """The access log of a server that starts again during a stop is open."""
        path = self.mktemp()
        server = self.recorded(application)
        site = GreenSite(application, reactor=server.reactor, access_log=path)
        server.site = site
        site.doStart()
        client = server.connect()
        client.send(get("/sleep?seconds=1"))
        site.stop()
        site.doStop()
        site.doStart()
        server.advance(1)
        client.send(get("/"))
        client.disconnect()
        site.stop()
        site.doStop()
        server.advance(1)
        with open(path) as lines:
            self.assertEqual(len(list(lines)), 2)
