"""Applications that fail: what clients get, what is logged, what is cleaned up."""

from __future__ import annotations

import gc
import sys
import weakref
from http.client import IncompleteRead
from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel

from .application import TEXT, Failure, application
from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start
    from .wire import App


class Closing:
    """An iterable that records its life, and fails where it is told to."""

    def __init__(self, environ: Environ, *blocks: bytes, fail: str = "") -> None:
        self.environ = environ
        self.blocks = iter(blocks)
        self.fail = fail
        self.tasks: list[Any] = []
        self.parked_in_close = 0.0

    def __iter__(self) -> Closing:
        self._note()
        return self

    def __next__(self) -> bytes:
        self._note()
        try:
            return next(self.blocks)
        except StopIteration:
            if self.fail == "next":
                raise Failure("in the iterable") from None
            raise

    def close(self) -> None:
        """Note it, wait if told to, and fail if told to."""
        self._note()
        self.environ["closed"].append(True)
        if self.parked_in_close:
            self.environ["txgreenwsgi.sleep"](self.parked_in_close)
            self.environ["closed"].append("after a wait")
        if "close" in self.fail:
            raise Failure("in close()")

    def _note(self) -> None:
        self.tasks.append(self.environ["txgreenwsgi.current_task"]())


class FailureTests(WireTestCase):
    """Exceptions of the application."""

    def test_before_the_head(self) -> None:
        """A 500 that tells nothing, then the end; the traceback is in the log."""
        client = self.connected(application)
        client.send(get("/fail-before?x") + get("/"))
        response = self.only(client)
        self.assertEqual(response.status, 500)
        self.assertEqual(response.body, b"Internal Server Error\n")
        self.assertTrue(client.closed)
        (failure,) = self.flushLoggedErrors(Failure)
        self.assertIn("fail_before", failure.getTraceback())
        self.assert_logged(
            "GET /fail-before?x (request ", "failed", level=LogLevel.critical
        )
        self.assertIn(self.records[0].request_id, self.logged(LogLevel.critical)[0])
        self.assertEqual(self.outcomes(), [(500, "error")])
        self.assertEqual(self.records[0].bytes_sent, len(response.body))

    def test_head_before_the_head(self) -> None:
        """The 500 to a HEAD has no body."""
        client = self.connected(application)
        client.send(get("/fail-before", method="HEAD"))
        self.assertEqual(self.only(client, "HEAD").status, 500)
        self.assertTrue(client.received.endswith(b"\r\n\r\n"))
        self.flushLoggedErrors(Failure)

    def test_display_tracebacks(self) -> None:
        """--display-tracebacks shows the client what went wrong."""
        client = self.connected(application, display_tracebacks=True)
        client.send(get("/fail-before"))
        self.assertIn(b"application.Failure: before the head", self.only(client).body)
        self.flushLoggedErrors(Failure)

    def test_after_the_head(self) -> None:
        """The stream ends without its last chunk: the client sees that it is broken."""
        client = self.connected(application)
        client.send(get("/fail-after") + get("/"))
        self.assertIn(b"\r\n\r\n5\r\nsome\n\r\n", client.received)
        self.assertNotIn(b"0\r\n\r\n", client.received)
        self.assertRaises(IncompleteRead, client.responses)
        self.assertTrue(client.closed)
        self.assertEqual(client.received.count(b"HTTP/1.1"), 1)
        self.assertEqual(len(self.flushLoggedErrors(Failure)), 1)
        self.assertEqual(self.outcomes(), [(200, "error")])

    def test_after_the_head_of_http_1_0(self) -> None:
        """Where only the end of the connection ends a body, it is reset instead."""
        client = self.connected(application)
        client.send(get("/fail-after", version="HTTP/1.0"))
        self.assertTrue(client.reset)
        self.flushLoggedErrors(Failure)

    def test_in_the_midst_of_a_length(self) -> None:
        """A body that breaks off before its length closes the connection."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "9")])
            yield b"four"
            raise Failure

        client = self.connected(app)
        client.send(get("/"))
        self.assertRaises(IncompleteRead, client.responses)
        self.assertTrue(client.closed)
        self.flushLoggedErrors(Failure)

    def test_exceptions_that_end_programs(self) -> None:
        """SystemExit and its like end the request, and nothing else."""
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, BaseException):

            def app(
                environ: Environ, start: Start, kind: type[BaseException] = kind
            ) -> Iterable[bytes]:
                if environ["PATH_INFO"] == "/exit":
                    raise kind
                return application(environ, start)

            server = self.serve(app)
            self.assertEqual(server.request("GET", "/exit").status, 500)
            self.assertEqual(server.request("GET", "/").status, 200)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_sys_exit_in_a_stream(self) -> None:
        """Also when they come from the iterable, or from close()."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            try:
                yield b"some"
                if environ["PATH_INFO"] == "/next":
                    sys.exit(1)
            finally:
                if environ["PATH_INFO"] == "/close":
                    sys.exit(2)

        server = self.serve(app)
        client = server.connect()
        client.send(get("/close"))
        self.assertRaises(IncompleteRead, client.responses)
        client = server.connect()
        client.send(get("/next"))
        self.assertRaises(IncompleteRead, client.responses)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 2)

    def test_failures_that_cannot_be_shown(self) -> None:
        """An exception that fails when it is printed is answered like any other."""

        class Unprintable(Exception):
            def __str__(self) -> str:
                raise ValueError

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            raise Unprintable

        server = self.serve(app, display_tracebacks=True)
        self.assertEqual(server.request().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(Unprintable)), 1)


class CloseTests(WireTestCase):
    """close() of what the application returns (PEP 3333)."""

    def run_one(
        self,
        *blocks: bytes,
        fail: str = "",
        fields: list[tuple[str, str]] = TEXT,
        settle: bool = True,
        parked: float = 0.0,
    ) -> MemoryServer:
        """Let an application serve one request with `Closing`."""
        self.closed: list[object] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/other":
                return application({**environ, "PATH_INFO": "/"}, start)
            environ["closed"] = self.closed
            start("200 OK", fields)
            self.iterable = Closing(environ, *blocks, fail=fail)
            self.iterable.parked_in_close = parked
            self.task = environ["txgreenwsgi.current_task"]()
            return self.iterable

        server = self.recorded(app)
        self.client = server.connect()
        self.client.send(get("/"))
        return server

    def test_at_the_end(self) -> None:
        """Called once, in the task of the request, after the last block."""
        self.run_one(b"a", b"b")
        self.assertEqual(self.closed, [True])
        self.assertEqual(set(self.iterable.tasks), {self.task})
        self.assertEqual(self.only(self.client).body, b"ab")

    def test_when_the_iterable_raises(self) -> None:
        """Called once, in the task of the request."""
        self.run_one(b"a", fail="next")
        self.assertEqual(self.closed, [True])
        self.assertEqual(set(self.iterable.tasks), {self.task})
        self.assertEqual(len(self.flushLoggedErrors(Failure)), 1)

    def test_when_it_raises_at_once(self) -> None:
        """Called though nothing was sent, before the 500 is."""
        self.run_one(fail="next")
        self.assertEqual(self.only(self.client).status, 500)
        self.assertEqual(self.closed, [True])
        self.flushLoggedErrors(Failure)

    def test_when_the_body_is_too_long(self) -> None:
        """Called though the iterable was not taken to its end."""
        self.run_one(b"abc", b"d", b"e", fields=[("Content-Length", "2")])
        self.assertEqual(self.closed, [True])

    def test_that_raises(self) -> None:
        """The response was complete: it stays good, and the failure is logged."""
        self.run_one(b"a", fail="close")
        self.assertEqual(self.only(self.client).body, b"a")
        self.assertEqual(len(self.flushLoggedErrors(Failure)), 1)
        self.client.send(get("/other"))
        self.assertEqual(self.client.responses()[1].body, b"hello\n")
        self.assertEqual(self.outcomes()[0], (200, "finished"))

    def test_both_fail(self) -> None:
        """A failing close() does not hide why the response had failed."""

        class Both(Closing):
            def __next__(self) -> bytes:
                raise Failure("first")

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["closed"] = []
            return Both(environ, fail="close")

        client = self.connected(app)
        client.send(get("/"))
        self.assertEqual(self.only(client).status, 500)
        messages = [each.getErrorMessage() for each in self.flushLoggedErrors(Failure)]
        self.assertEqual(sorted(messages), ["first", "in close()"])
        self.assert_logged("close() of a response failed after the response had failed")

    def test_that_waits(self) -> None:
        """It may wait; the client has its response, its next request waits for it."""
        server = self.run_one(b"a", parked=1.0)
        self.assertEqual(self.only(self.client).body, b"a")
        self.client.send(get("/other"))
        self.assertEqual(len(self.client.responses()), 1)
        self.assertEqual(len(server.site.server.table.exchanges), 1)
        server.advance(1)
        self.assertEqual(self.closed, [True, "after a wait"])
        self.assertEqual(len(self.client.responses()), 2)

    def test_that_waits_for_long(self) -> None:
        """The connection is not closed over it, however long it takes."""
        server = self.run_one(b"a", parked=100.0)
        for _ in range(101):
            server.advance(1)
        self.assertEqual(self.closed, [True, "after a wait"])
        self.assertFalse(self.client.closed)

    def test_that_waits_while_the_client_leaves(self) -> None:
        """A client that leaves now does not interrupt it."""
        server = self.run_one(b"a", parked=1.0)
        self.client.disconnect()
        server.advance(1)
        self.assertEqual(self.closed, [True, "after a wait"])
        self.assertEqual(self.outcomes(), [(200, "finished")])

    def test_no_close(self) -> None:
        """An application that fails has nothing to be closed."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            raise Failure

        client = self.connected(app)
        client.send(get("/"))
        self.assertEqual(self.only(client).status, 500)
        self.flushLoggedErrors(Failure)


class StartResponseTests(WireTestCase):
    """start_response (PEP 3333, "The start_response() Callable")."""

    def test_sends_nothing(self) -> None:
        """The head goes with the first block that is not empty, or at the end."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            environ["txgreenwsgi.sleep"](1)
            yield b""
            environ["txgreenwsgi.sleep"](1)
            yield b"now"
            environ["txgreenwsgi.sleep"](1)

        server = self.serve(app)
        client = server.connect()
        client.send(get("/"))
        for _ in range(2):
            self.assertEqual(client.received, b"")
            server.advance(1)
        self.assertTrue(client.received.endswith(b"\r\n\r\n3\r\nnow\r\n"))
        server.advance(1)
        self.assertEqual(self.only(client).body, b"now")

    def test_each_block_is_handed_over(self) -> None:
        """A block is sent before the next is asked for (PEP 3333, Buffering)."""
        seen: list[bytes] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            write = start("200 OK", TEXT)
            write(b"zero")
            for word in (b"one", b"two"):
                seen.append(bytes(client.socket.to_client)[-9:])
                yield word
            seen.append(bytes(client.socket.to_client)[-9:])

        client = self.serve(app).connect()
        client.send(get("/"))
        self.assertEqual(
            seen,
            [b"4\r\nzero\r\n"[-9:], b"\n3\r\none\r\n"[-9:], b"\n3\r\ntwo\r\n"[-9:]],
        )

    def twice(self, *exc_info: Any, before: bytes = b"") -> App:
        """An application that calls start_response twice, after a block perhaps."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [*TEXT, ("X-First", "1")])
            yield before
            try:
                raise Failure("the reason")
            except Failure:
                start(
                    "503 Sorry",
                    [*TEXT, ("X-Second", "2")],
                    *(each() for each in exc_info),
                )
            yield b"second"

        return app

    def test_twice(self) -> None:
        """A second call without exc_info is an error."""
        for before, status in ((b"", 500), (b"some", 200)):
            client = self.connected(self.twice(before=before))
            client.send(get("/"))
            self.assertTrue(client.received.startswith(b"HTTP/1.1 %d" % status))
            self.assertTrue(client.closed)
            (failure,) = self.flushLoggedErrors(AssertionError)
            self.assertIn("twice without exc_info", failure.getErrorMessage())

    def test_exc_info_before_the_head(self) -> None:
        """A second call with exc_info replaces what was not sent."""
        for none in (sys.exc_info, lambda: (None, None, None)):
            client = self.connected(self.twice(none))
            client.send(get("/"))
            response = self.only(client)
            self.assertEqual((response.status, response.body), (503, b"second"))
            self.assertIsNone(response.header("X-First"))
            self.assertEqual(response.header("X-Second"), "2")

    def test_exc_info_after_the_head(self) -> None:
        """It raises that exception again once the head was sent."""
        client = self.connected(self.twice(sys.exc_info, before=b"some"))
        client.send(get("/"))
        self.assertRaises(IncompleteRead, client.responses)
        (failure,) = self.flushLoggedErrors(Failure)
        self.assertEqual(failure.getErrorMessage(), "the reason")

    def test_empty_exc_info_after_the_head(self) -> None:
        """An exc_info without an exception cannot replace what was sent."""
        client = self.connected(self.twice(lambda: (None, None, None), before=b"some"))
        client.send(get("/"))
        self.assertRaises(IncompleteRead, client.responses)
        (failure,) = self.flushLoggedErrors(AssertionError)
        self.assertIn("without an exception", failure.getErrorMessage())

    def test_application_that_catches_its_error(self) -> None:
        """An error that start_response raised can be made good by another call."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                start("200 OK", [("X-Foo", "a\nb")])
            except ValueError:
                start("500 Oops", TEXT)
            return [b"caught"]

        client = self.connected(app)
        client.send(get("/"))
        self.assertEqual(self.only(client).reason, "Oops")

    def test_write_of_nothing(self) -> None:
        """An empty block sends nothing, not even the head."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"")
            start("201 Made", TEXT, sys.exc_info())
            return [b""]

        client = self.connected(app)
        client.send(get("/"))
        self.assertEqual(self.only(client).status, 201)

    def test_write_after_the_end(self) -> None:
        """A `write` that was kept cannot put bytes where the next response goes."""
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)

            def later() -> None:
                environ["txgreenwsgi.sleep"](1)
                try:
                    write(b"evil")
                except ValueError as error:
                    errors.append(str(error))

            environ["txgreenwsgi.spawn"](later)
            return [] if environ["PATH_INFO"] == "/empty" else [b"body"]

        server = self.serve(app)
        client = server.connect()
        client.send(get("/") + get("/empty"))
        server.advance(1)
        self.assertEqual(errors, ["the response was written to after its end"] * 2)
        self.assertEqual([each.body for each in client.responses()], [b"body", b""])

    def test_write_after_a_failure(self) -> None:
        """Nor after the server itself has answered for the application."""
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)

            def later() -> None:
                environ["txgreenwsgi.sleep"](0)
                try:
                    write(b"evil")
                except ValueError as error:
                    errors.append(str(error))

            environ["txgreenwsgi.spawn"](later)
            raise Failure

        client = self.connected(app)
        client.send(get("/"))
        self.assertEqual(self.only(client).status, 500)
        self.assertEqual(errors, ["the response was written to after its end"])
        self.flushLoggedErrors(Failure)


class ReferenceTests(WireTestCase):
    """What is left in memory of a request that is over."""

    def test_nothing(self) -> None:
        """Objects of a request die with it, without a run of the collector."""

        class Big:
            pass

        references: list[weakref.ref[Big]] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["big"] = big = Big()
            references.append(weakref.ref(big))
            environ["wsgi.input"].read()
            start("200 OK", TEXT)
            if environ["PATH_INFO"] == "/stream":
                return iter([b"a", b"b"])
            return [b"one"]

        client = self.serve(app).connect()
        gc.collect()
        gc.disable()
        try:
            client.send(get("/") + get("/stream") + post("/", b"abc"))
            self.assertEqual([each() for each in references], [None] * 3)
        finally:
            gc.enable()

    def test_failed(self) -> None:
        """Those of a request that failed can be collected once the log is read."""

        class Big:
            pass

        references: list[weakref.ref[Big]] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["big"] = big = Big()
            references.append(weakref.ref(big))
            if environ["PATH_INFO"] == "/read":
                environ["wsgi.input"].read()
            raise Failure

        server = self.serve(app)
        server.request()
        client = server.connect()
        client.send(get("/read", "Content-Length: 3", method="POST"))
        client.disconnect()
        self.flushLoggedErrors(Failure)
        self.events.clear()
        gc.collect()
        self.assertEqual([each() for each in references], [None] * 2)
