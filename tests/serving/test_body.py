"""Tests of `RequestBody`, with a stream in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from txgreenwsgi import spawn
from txgreenwsgi._serving.body import NO_BODY, BadBody, RequestBody

from .cases import ServingTestCase
from .memory_stream import MemoryStream, request_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class RequestBodyTests(ServingTestCase):
    """`RequestBody`: pieces from the stream, reads of tasks."""

    def setUp(self) -> None:
        """Create a list for the results of reads."""
        super().setUp()
        self.read: list[object] = []
        self.second_reader = False
        self.other_reads: list[object] = []

    def reading(self, receive: Callable[[], bytes]) -> None:
        """Read to the end; keep the pieces, or the exception."""
        while True:
            try:
                piece = receive()
            except Exception as error:
                self.read.append(f"{type(error).__name__}: {error}")
                raise
            self.read.append(piece)
            if not piece:
                return

    def other_read(self, receive: Callable[[], bytes]) -> None:
        """Read while the application's own read is parked; keep the error."""
        try:
            self.other_reads.append(receive())
        except (RuntimeError, ValueError, OSError) as error:
            self.other_reads.append(error)

    def uploaded(
        self, length: int | None = 4, expects_continue: bool = False, **changes: Any
    ) -> MemoryStream:
        """Return the stream of a request whose application reads its body."""

        def application(
            environ: WSGIEnvironment, start_response: StartResponse
        ) -> list[bytes]:
            receive = self.body(stream).receive
            if self.second_reader:
                spawn(self.other_read, receive)
            self.reading(receive)
            start_response("200 OK", [])
            return []

        self.server = self.server_of(application, chunked="stream")
        head = request_head("POST", "/", length, expects_continue)
        stream = MemoryStream(self.server, head)
        exchange = stream.exchange
        exchange.replace_limits(replace(exchange.limits, **changes))
        return stream

    def body(self, stream: MemoryStream) -> RequestBody:
        """Return the body of a stream."""
        body = stream.exchange.body
        assert isinstance(body, RequestBody)
        return body

    def test_pieces(self) -> None:
        """Pieces are read in order: those of before, and those that come later."""
        stream = self.uploaded()
        body = self.body(stream)
        body.received(b"a")
        body.received(b"b")
        self.assertEqual((body.held, body.max_missing_bytes), (2, 2))
        stream.exchange.admit()
        self.assertEqual(self.read, [b"a", b"b"])
        body.received(b"cd")
        body.ended()
        self.settle(self.server)
        self.assertEqual(self.read, [b"a", b"b", b"cd", b""])
        self.assertEqual((body.held, body.max_missing_bytes), (0, 0))
        self.assertEqual(stream.exchange.state, "ended")

    def test_length_that_is_not_known(self) -> None:
        """A chunked body has no bound."""
        stream = self.uploaded(None)
        self.assertEqual(self.body(stream).max_missing_bytes, float("inf"))
        stream.leave()

    def test_read_without_parking(self) -> None:
        """A read first takes what the stream can read at once."""
        stream = self.uploaded()
        stream.to_read = b"abc"
        stream.exchange.admit()
        self.assertEqual(self.read, [b"abc"])
        self.assertEqual(self.body(stream).max_missing_bytes, 1)
        self.body(stream).received(b"d")
        self.body(stream).ended()
        self.settle(self.server)
        self.assertEqual(self.read, [b"abc", b"d", b""])

    def test_continue(self) -> None:
        """The first read asks the client for the body, once."""
        stream = self.uploaded(4, expects_continue=True)
        self.assertTrue(self.body(stream).client_waits)
        stream.exchange.admit()
        self.assertEqual(stream.calls, ["send_continue"])
        self.assertFalse(self.body(stream).client_waits)
        for piece in (b"ab", b"cd"):
            self.body(stream).received(piece)
            self.settle(self.server)
        self.body(stream).ended()
        self.settle(self.server)
        self.assertEqual(stream.calls.count("send_continue"), 1)

    def test_backpressure(self) -> None:
        """A full body pauses the stream, and a read resumes it."""
        stream = self.uploaded(input_window=3)
        body = self.body(stream)
        body.received(b"ab")
        self.assertFalse(body.full)
        body.received(b"cd")
        stream.update_backpressure()
        self.assertTrue(stream.reading_paused)
        stream.exchange.admit()
        self.assertFalse(stream.reading_paused)
        body.ended()
        self.settle(self.server)

    def test_many_small_pieces(self) -> None:
        """A body of many small pieces is full below its window."""
        stream = self.uploaded(None, input_window=1_000_000)
        body = self.body(stream)
        for _ in range(1024):
            self.assertFalse(body.full)
            body.received(b"x")
        self.assertTrue(body.full)
        stream.leave()

    def test_too_long(self) -> None:
        """A body beyond its limit fails each read, and receiving stops."""
        stream = self.uploaded(None, body_bytes=3)
        body = self.body(stream)
        stream.exchange.admit()
        body.received(b"ab")
        self.settle(self.server)
        body.received(b"cd")
        self.settle(self.server)
        self.assertEqual(self.read, [b"ab", "BadBody: the body is longer than 3 bytes"])
        self.assertEqual(stream.calls[:2], ["stop_receiving", "answer"])
        self.assertEqual(self.outcomes(), [(413, "error")])
        body.received(b"late")
        self.assertEqual(body.held, 0)

    def test_silence(self) -> None:
        """A silent client fails a read after `body_seconds`, and only a read."""
        stream = self.uploaded(body_seconds=5.0, body_rate=0)
        body = self.body(stream)
        body.check(1000)
        self.assertIsNone(body.error)
        stream.exchange.admit()
        body.check(4.9)
        self.assertIsNone(body.error)
        body.check(5)
        self.settle(self.server)
        self.assertEqual(self.outcomes(), [(408, "error")])
        self.assertIn("no byte of the body", str(self.read[-1]))

    def test_rate(self) -> None:
        """A client may be slower than `body_rate` for a minute."""
        stream = self.uploaded(1000, body_seconds=30.0, body_rate=10)
        body = self.body(stream)
        reactor: Any = self.server.reactor
        stream.exchange.admit()
        for second in range(1, 70):
            reactor.advance(1)
            body.check(second)
            if body.error is not None:
                break
            body.received(b"x")
            self.settle(self.server)
        # 60 seconds, and one for each ten bytes.
        self.assertEqual(second, 67)
        self.settle(self.server)
        self.assertEqual(self.outcomes(), [(408, "error")])

    def test_two_readers(self) -> None:
        """A second task that reads gets an error; the first is not disturbed."""
        self.second_reader = True
        stream = self.uploaded()
        body = self.body(stream)
        stream.exchange.admit()
        self.settle(self.server)
        (error,) = self.other_reads
        self.assertIsInstance(error, RuntimeError)
        self.assertIn("two tasks read the body", str(error))
        body.received(b"abcd")
        body.ended()
        self.settle(self.server)
        self.assertEqual(self.read, [b"abcd", b""])

    def test_lost(self) -> None:
        """A lost client fails a read, unless the body is complete."""
        for complete in (False, True):
            self.read.clear()
            stream = self.uploaded()
            body = self.body(stream)
            stream.exchange.admit()
            if complete:
                body.received(b"abcd")
                body.ended()
            body.lose(OSError("gone"))
            self.settle(self.server)
            expected = [b"abcd", b""] if complete else ["OSError: gone"]
            self.assertEqual(self.read, expected)
        self.flushLoggedErrors(OSError)

    def test_drop(self) -> None:
        """After the end of the request, reads raise ValueError."""
        stream = self.uploaded()
        body = self.body(stream)
        body.fail(BadBody(400, "bad"))
        body.drop()
        error = self.assertRaises(ValueError, body.receive)
        self.assertIn("after the request had ended", str(error))
        self.assertRaises(ValueError, body.reader_turn)
        stream.leave()


class NoBodyTests(ServingTestCase):
    """`NO_BODY`: the body of all requests without one."""

    def test_state(self) -> None:
        """It is complete, empty, and never changes."""
        for call in (
            NO_BODY.ended,
            NO_BODY.drop,
            lambda: NO_BODY.check(0),
            lambda: NO_BODY.cut(OSError()),
            lambda: NO_BODY.lose(OSError()),
        ):
            call()
        self.assertTrue(NO_BODY.complete)
        self.assertFalse(NO_BODY.full)
        self.assertEqual((NO_BODY.held, NO_BODY.max_missing_bytes), (0, 0))
        self.assertIsNone(NO_BODY.error)
        self.assertIsNone(NO_BODY.reader)

    def test_pieces(self) -> None:
        """A piece for it is a defect of the stream, and raises."""
        self.assertRaises(AssertionError, NO_BODY.received, b"x")
        self.assertRaises(AssertionError, NO_BODY.fail, BadBody(400, "bad"))
