"""Failing applications: responses, log lines, cleanup."""

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
    """An iterable that records its calls and fails as configured."""

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
        """Record the call, wait if configured, fail if configured."""
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
        """A failure before the head gets a 500 without details, and is logged."""
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
        """The 500 to a HEAD request has no body."""
        client = self.connected(application)
        client.send(get("/fail-before", method="HEAD"))
        self.assertEqual(self.only(client, "HEAD").status, 500)
        self.assertTrue(client.received.endswith(b"\r\n\r\n"))
        self.flushLoggedErrors(Failure)

    def test_display_tracebacks(self) -> None:
        """With --display-tracebacks, the 500 contains the traceback."""
        client = self.connected(application, display_tracebacks=True)
        client.send(get("/fail-before"))
        self.assertIn(b"application.Failure: before the head", self.only(client).body)
        self.flushLoggedErrors(Failure)

    def test_after_the_head(self) -> None:
        """The stream ends without its last chunk, which the client can detect."""
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
        """A body that is delimited by the close is reset instead."""
        client = self.connected(application)
        client.send(get("/fail-after", version="HTTP/1.0"))
        self.assertTrue(client.reset)
        self.flushLoggedErrors(Failure)

    def test_within_a_length(self) -> None:
        """A body that ends before its length closes the connection."""

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
        """SystemExit and other BaseExceptions end the request only."""
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
        """The same holds in the iterable and in close()."""

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
        """An exception whose repr() fails is answered like any other."""

        class Unprintable(Exception):
            def __str__(self) -> str:
                raise ValueError

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            raise Unprintable

        server = self.serve(app, display_tracebacks=True)
        self.assertEqual(server.request().status, 500)
        self.assertEqual(len(self.flushLoggedErrors(Unprintable)), 1)


class CloseTests(WireTestCase):
    """close() of the application's iterable (PEP 3333)."""

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
        """close() is called once, in the request's task, after the last block."""
        self.run_one(b"a", b"b")
        self.assertEqual(self.closed, [True])
        self.assertEqual(set(self.iterable.tasks), {self.task})
        self.assertEqual(self.only(self.client).body, b"ab")

    def test_when_the_iterable_raises(self) -> None:
        """close() is called once, in the task of the request."""
        self.run_one(b"a", fail="next")
        self.assertEqual(self.closed, [True])
        self.assertEqual(set(self.iterable.tasks), {self.task})
        self.assertEqual(len(self.flushLoggedErrors(Failure)), 1)

    def test_when_it_raises_at_once(self) -> None:
        """close() is called before the 500 even if nothing was sent."""
        self.run_one(fail="next")
        self.assertEqual(self.only(self.client).status, 500)
        self.assertEqual(self.closed, [True])
        self.flushLoggedErrors(Failure)

    def test_when_the_body_is_too_long(self) -> None:
        """close() is called even if the iteration ended early."""
        self.run_one(b"abc", b"d", b"e", fields=[("Content-Length", "2")])
        self.assertEqual(self.closed, [True])

    def test_that_raises(self) -> None:
        """The response stays complete; the failure is logged."""
        self.run_one(b"a", fail="close")
        self.assertEqual(self.only(self.client).body, b"a")
        self.assertEqual(len(self.flushLoggedErrors(Failure)), 1)
        self.client.send(get("/other"))
        self.assertEqual(self.client.responses()[1].body, b"hello\n")
        self.assertEqual(self.outcomes()[0], (200, "finished"))

    def test_both_fail(self) -> None:
        """A failing close() does not hide the failure of the response."""

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
        """close() may park; the client has its response, its next request waits."""
        server = self.run_one(b"a", parked=1.0)
        self.assertEqual(self.only(self.client).body, b"a")
        self.client.send(get("/other"))
        self.assertEqual(len(self.client.responses()), 1)
        self.assertEqual(len(server.site.server.table.exchanges), 1)
        server.advance(1)
        self.assertEqual(self.closed, [True, "after a wait"])
        self.assertEqual(len(self.client.responses()), 2)

    def test_that_waits_for_long(self) -> None:
        """A close() that parks for long does not close the connection."""
        server = self.run_one(b"a", parked=100.0)
        for _ in range(101):
            server.advance(1)
        self.assertEqual(self.closed, [True, "after a wait"])
        self.assertFalse(self.client.closed)

    def test_that_waits_while_the_client_leaves(self) -> None:
        """A disconnect does not interrupt close()."""
        server = self.run_one(b"a", parked=1.0)
        self.client.disconnect()
        server.advance(1)
        self.assertEqual(self.closed, [True, "after a wait"])
        self.assertEqual(self.outcomes(), [(200, "finished")])

    def test_no_close(self) -> None:
        """A failing application has no iterable to close."""

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
        """The head is sent with the first non-empty block, or at the end."""

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
        """A block is sent before the next is requested (PEP 3333, Buffering)."""
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
        """Return an application that calls start_response twice."""

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
        """A second call with exc_info replaces a head that was not sent."""
        for none in (sys.exc_info, lambda: (None, None, None)):
            client = self.connected(self.twice(none))
            client.send(get("/"))
            response = self.only(client)
            self.assertEqual((response.status, response.body), (503, b"second"))
            self.assertIsNone(response.header("X-First"))
            self.assertEqual(response.header("X-Second"), "2")

    def test_exc_info_after_the_head(self) -> None:
        """With exc_info, its exception is raised again after the head was sent."""
        client = self.connected(self.twice(sys.exc_info, before=b"some"))
        client.send(get("/"))
        self.assertRaises(IncompleteRead, client.responses)
        (failure,) = self.flushLoggedErrors(Failure)
        self.assertEqual(failure.getErrorMessage(), "the reason")

    def test_empty_exc_info_after_the_head(self) -> None:
        """An exc_info without an exception cannot replace a sent head."""
        client = self.connected(self.twice(lambda: (None, None, None), before=b"some"))
        client.send(get("/"))
        self.assertRaises(IncompleteRead, client.responses)
        (failure,) = self.flushLoggedErrors(AssertionError)
        self.assertIn("without an exception", failure.getErrorMessage())

    def test_application_that_catches_its_error(self) -> None:
        """After an error of start_response, another call may succeed."""

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
        """A `write` that is called after the response cannot corrupt the next one."""
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
        """Nor can it after the server's own response to a failure."""
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
    """References to a finished request."""

    def test_nothing(self) -> None:
        """The objects of a request are freed at its end, without a collection."""

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
        """Those of a failed request can be collected once the log event is gone."""

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
