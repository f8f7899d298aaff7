"""Deadlines of requests, of the admission queue and of slow clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import LogLevel, formatEvent

from txgreenwsgi import ClientDisconnected, RequestTimeout
from txgreenwsgi._switching.greenlets import hub_of

from .harness import STREAMING, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .harness import Environ, Start
    from .harness_clients import Reply

#: Tolerance of a deadline in seconds.
SLACK = 0.5


class RequestTimeoutCases(Cases):
    """request_timeout, and environ["txgreenwsgi.set_request_timeout"]."""

    def setUp(self) -> None:
        """Create a list for the exceptions that end the applications."""
        super().setUp()
        self.ended: list[type[BaseException]] = []

    def sleeping(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Sleep for an hour, or until an exception."""
        try:
            environ["txgreenwsgi.sleep"](3600)
        except Exception as error:
            self.ended.append(type(error))
            raise
        start("200 OK", TEXT)
        return [b"slept"]

    def test_before_the_head(self) -> None:
        """The wait raises RequestTimeout, and the client gets 504."""
        server = self.serve(self.sleeping, request_timeout=5)
        reply = server.begin()
        server.advance(5 - SLACK)
        self.assertEqual((reply.state, self.ended), ("waiting", []))
        server.advance(2 * SLACK)
        self.assert_complete(reply, b"Gateway Timeout\n", status=504)
        self.assertEqual(self.ended, [RequestTimeout])
        self.assertEqual(self.outcomes(), [(504, "timeout")])
        warnings = [
            formatEvent(event)
            for event in self.events
            if event["log_level"] is LogLevel.warn
        ]
        self.assertEqual(len(warnings), 1, warnings)
        self.assertIn("GET / ", warnings[0])
        self.assertEqual(self.errors(), [])

    def test_after_the_head(self) -> None:
        """A started response is truncated."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"part"
            yield from self.sleeping(environ, start)

        server = self.serve(app, request_timeout=5)
        reply = server.begin()
        server.advance(5 - SLACK)
        self.assertEqual((reply.state, reply.body), ("open", b"part"))
        server.advance(2 * SLACK)
        self.assert_cut(reply, b"part")
        self.assertEqual(self.ended, [RequestTimeout])
        self.assertEqual(self.outcomes(), [(200, "timeout")])
        self.assertEqual(self.errors(), [])

    def test_in_time(self) -> None:
        """A request that ends in time is not affected, and neither is the next one."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](4)
            start("200 OK", TEXT)
            return [b"slept"]

        server = self.serve(app, request_timeout=5)
        for _ in range(2):
            reply = server.begin()
            server.advance(4 + SLACK)
            self.assert_complete(reply, b"slept")
        self.assertEqual(self.outcomes(), [(200, "finished")] * 2)

    def test_of_one_request(self) -> None:
        """A request may shorten, extend or remove its timeout, from the call on."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            own = {"/short": 2, "/long": 20, "/none": None}
            environ["txgreenwsgi.set_request_timeout"](own[environ["PATH_INFO"]])
            return self.sleeping(environ, start)

        server = self.serve(app, request_timeout=10)
        short = server.begin(target="/short")
        long = server.begin(target="/long")
        none = server.begin(target="/none")
        server.advance(3 - SLACK)
        self.assertEqual(short.state, "waiting")
        server.advance(2 * SLACK)
        self.assert_complete(short, status=504)
        server.advance(15)
        self.assertEqual(long.state, "waiting")
        server.advance(3)
        self.assert_complete(long, status=504)
        server.advance(3600)
        self.assert_complete(none, b"slept")

    def test_invalid_timeouts(self) -> None:
        """A timeout that is not a number above 0 raises a ValueError that quotes it."""
        values = (-1, 0, -0.5, float("nan"))
        raised: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            set_timeout = environ["txgreenwsgi.set_request_timeout"]
            raised.extend(refusal(set_timeout, value) for value in values)
            start("200 OK", TEXT)
            return [b"alive"]

        def refusal(set_timeout: Callable[[float], object], value: float) -> str:
            try:
                set_timeout(value)
            except ValueError as error:
                return str(error)
            return "no ValueError"

        server = self.serve(app, request_timeout=5)
        reply = server.begin()
        for value, text in zip(values, raised, strict=True):
            self.assertIn(repr(value), text)
        self.assert_complete(reply, b"alive")
        server.advance(10)

    def test_frees_the_place(self) -> None:
        """A request that timed out releases its slot to the next one."""
        server = self.serve(
            self.sleeping, request_timeout=2, max_in_flight=1, queue_timeout=0
        )
        first = server.begin()
        server.advance(1)
        second = server.begin()
        server.advance(1 + SLACK)
        self.assert_complete(first, status=504)
        self.assertEqual(len(server.app.environs), 2)
        server.advance(3)
        self.assertTrue(second.status in (503, 504), second)


class QueueTimeoutCases(Cases):
    """queue_timeout."""

    def test_refusal(self) -> None:
        """A request that is queued for too long gets 503."""
        called: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            called.append(environ["PATH_INFO"])
            environ["txgreenwsgi.sleep"](10)
            start("200 OK", TEXT)
            return [b"done"]

        server = self.serve(app, max_in_flight=1, queue_timeout=3)
        first = server.begin(target="/first")
        second = server.begin(target="/second")
        server.advance(3 - SLACK)
        self.assertEqual(second.state, "waiting")
        server.advance(2 * SLACK)
        self.assert_complete(second, status=503)
        self.assertEqual(second.header("Retry-After"), "1")
        self.assertEqual(len(server.app.requests()), 1)
        server.advance(10)
        self.assert_complete(first, b"done")
        self.assertEqual(called, ["/first"])
        self.assertEqual(self.outcomes(), [(503, "refused"), (200, "finished")])
        # It has left the queue.
        third = server.begin(target="/third")
        server.advance(10 + SLACK)
        self.assert_complete(third, b"done")
        self.assertEqual(called, ["/first", "/third"])

    def test_no_limit(self) -> None:
        """With queue_timeout=0, a request waits in the queue without limit."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](100)
            start("200 OK", TEXT)
            return [b"done"]

        server = self.serve(app, max_in_flight=1, queue_timeout=0)
        replies = [server.begin(), server.begin()]
        server.advance(100 + SLACK)
        server.advance(100 + SLACK)
        for reply in replies:
            self.assert_complete(reply, b"done")


class WriteTimeoutCases(Cases):
    """write_timeout."""

    def endless(self, environ: Environ, start: Start) -> Iterator[bytes]:
        """Send an endless sequence of blocks."""
        start("200 OK", TEXT)
        try:
            while True:
                yield b"x" * 65536
        finally:
            self.closed.append(True)

    def setUp(self) -> None:
        """Create a list for the ends of iterables."""
        super().setUp()
        self.closed: list[bool] = []

    def test_client_that_does_not_read(self) -> None:
        """A client that accepts no byte for that time is disconnected."""
        server = self.serve(self.endless, write_timeout=4)
        reply = server.begin(slow=True)
        server.advance(4 - SLACK)
        self.assertEqual(self.closed, [])
        server.advance(2 * SLACK)
        self.assertEqual(self.closed, [True])
        server.advance(1)
        server.read(reply)
        self.assert_cut(reply)
        self.assertEqual(self.outcomes(), [(200, "timeout")])
        self.assertEqual(self.errors(), [])

    def test_write(self) -> None:
        """At the timeout, write() raises ClientDisconnected."""
        raised: list[BaseException] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            try:
                while True:
                    write(b"x" * 65536)
            except ClientDisconnected as error:
                raised.append(error)
                raise
            return []

        server = self.serve(app, write_timeout=4)
        server.begin(slow=True)
        server.advance(4 + SLACK)
        self.assertEqual(len(raised), 1)
        self.assertEqual(self.outcomes(), [(200, "timeout")])

    def test_rest_of_a_response(self) -> None:
        """The timeout also applies to the last block."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return [b"x" * self.transport.large]

        server = self.serve(app, write_timeout=4)
        reply = server.begin(slow=True)
        server.advance(4 + 2 * SLACK)
        server.read(reply)
        self.assert_cut(reply)
        self.assertEqual(server.app.requests(), [])

    def test_client_that_pauses(self) -> None:
        """A client that reads between pauses is not disconnected."""
        content = b"x" * max(self.transport.large, 700_000)

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)
            return [content]

        server = self.serve(app, write_timeout=4)
        reply = server.begin(slow=True)
        for _ in range(3):
            server.advance(3)
            # Enough for a transport that reports progress per buffer of 64 KiB.
            server.read_some(reply, 150_000)
            self.assertEqual(reply.state, "open")
        server.read(reply)
        server.advance(1)
        self.assert_complete(reply)
        self.assertEqual(len(reply.body), len(content))

    def test_application_that_waits(self) -> None:
        """The clock of the timeout does not run while the application sends nothing."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"one"
            environ["txgreenwsgi.sleep"](20)
            yield b"two"

        server = self.serve(app, write_timeout=4)
        reply = server.begin()
        server.advance(20 + SLACK)
        self.assert_complete(reply, b"onetwo")


class BodyTimeoutCases(Cases):
    """body_timeout and min_body_rate, on transports that stream the request body."""

    def echo(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer with the request body."""
        body = environ["wsgi.input"].read()
        start("200 OK", TEXT)
        return [body]

    def test_silent_client(self) -> None:
        """If a read gets no byte for body_timeout, the client gets 408."""
        server = self.serve(self.echo, body_timeout=5)
        reply = server.begin("POST", body=b"abc", length=9)
        server.advance(4)
        server.send_body(reply, b"def")
        server.advance(5 - SLACK)
        self.assertEqual(reply.state, "waiting")
        server.advance(2 * SLACK)
        self.assert_complete(reply, status=408)
        self.assertEqual(self.outcomes(), [(408, "error")])
        self.assertEqual(self.errors(), [])

    def test_in_time(self) -> None:
        """A body that arrives in small pieces is read completely."""
        server = self.serve(self.echo, body_timeout=5)
        reply = server.begin("POST", body=b"abc", length=9)
        server.advance(4)
        server.send_body(reply, b"def")
        server.advance(4)
        server.send_body(reply, b"ghi", end=True)
        server.advance(SLACK)
        self.assert_complete(reply, b"abcdefghi")


class StallCases(Cases):
    """Stalls: a view that computes, a stopped process, a paused virtual machine."""

    def waiting(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer after four seconds."""
        environ["txgreenwsgi.sleep"](4)
        start("200 OK", TEXT)
        return [b"done"]

    def endless(self, environ: Environ, start: Start) -> Iterator[bytes]:
        """Send an endless sequence of blocks."""
        start("200 OK", TEXT)
        while True:
            yield b"x" * 65536

    def test_request_timeout(self) -> None:
        """A stall does not count as time of a request."""
        server = self.serve(self.sleeping, request_timeout=5)
        reply = server.begin()
        server.advance(2)
        server.stall(60)
        server.advance(3 - SLACK)
        self.assertEqual(reply.state, "waiting")
        server.advance(2 * SLACK)
        self.assert_complete(reply, status=504)

    def sleeping(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Sleep for an hour."""
        environ["txgreenwsgi.sleep"](3600)
        return []

    def test_repeated_stalls(self) -> None:
        """Deadlines are applied even if each check comes late."""
        server = self.serve(self.sleeping, request_timeout=5)
        reply = server.begin()
        for _ in range(22):
            server.stall(2)
        self.assert_complete(reply, status=504)

    def test_request_during_a_stall(self) -> None:
        """A request that begins after a stall gets no more time than others."""
        server = self.serve(self.sleeping, request_timeout=5)
        first = server.begin()
        later: list[Reply] = []
        server.stall(60, lambda: later.append(server.begin()))
        server.advance(5 + SLACK)
        self.assert_complete(first, status=504)
        self.assert_complete(later[0], status=504)

    def test_timeout_set_after_a_computation(self) -> None:
        """set_request_timeout() counts from the call, also in a view that computes."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            server.skip_time(30)
            environ["txgreenwsgi.set_request_timeout"](5)
            return self.sleeping(environ, start)

        server = self.serve(app)
        reply = server.begin()
        hub_of(server.reactor).detects_stalls = True
        server.advance(1)
        hub_of(server.reactor).detects_stalls = False
        server.advance(5 - SLACK)
        self.assertEqual(reply.state, "waiting")
        server.advance(2 * SLACK)
        self.assert_complete(reply, status=504)

    def test_queue_timeout(self) -> None:
        """A stall does not count as time in the queue."""
        server = self.serve(self.waiting, max_in_flight=1, queue_timeout=5)
        first = server.begin()
        second = server.begin()
        server.advance(1)
        server.stall(60)
        self.assert_complete(first, b"done")
        server.advance(4 + SLACK)
        self.assert_complete(second, b"done")

    def test_write_timeout(self) -> None:
        """A client that reads nothing during a stall gets the rest of its time."""
        server = self.serve(self.endless, write_timeout=5)
        reply = server.begin(slow=True)
        server.advance(2)
        server.stall(60)
        server.advance(3 - SLACK)
        self.assertEqual(self.outcomes(), [])
        server.advance(2 * SLACK)
        self.assertEqual(self.outcomes(), [(200, "timeout")])
        server.read(reply)
        self.assert_cut(reply)


class StalledBodyCases(Cases):
    """Stalls during a request body, on transports that stream it."""

    def echo(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer with the request body."""
        body = environ["wsgi.input"].read()
        start("200 OK", TEXT)
        return [body]

    def test_client_in_time(self) -> None:
        """Bytes that arrive during a stall are in time."""
        server = self.serve(self.echo, body_timeout=5)
        reply = server.begin("POST", body=b"abc", length=6)
        server.advance(5 - SLACK)
        server.stall(60, lambda: reply.connection.send_body(reply, b"def", True))
        self.assert_complete(reply, b"abcdef")

    def test_silent_client(self) -> None:
        """A silent client gets the rest of its time."""
        server = self.serve(self.echo, body_timeout=5)
        reply = server.begin("POST", body=b"abc", length=6)
        server.advance(2)
        server.stall(60)
        server.advance(3 - SLACK)
        self.assertEqual(reply.state, "waiting")
        server.advance(2 * SLACK)
        self.assert_complete(reply, status=408)

    def test_slow_client(self) -> None:
        """A stall does not count for min_body_rate."""
        server = self.serve(self.echo, body_timeout=5, min_body_rate=1000)
        reply = server.begin("POST", body=b"abc", length=6)
        for last in (False, False, True):
            server.advance(2)
            server.stall(60)
            server.send_body(reply, b"d", end=last)
        server.advance(SLACK)
        self.assert_complete(reply, b"abcddd")


globals().update(
    on_every_transport(
        RequestTimeoutCases, QueueTimeoutCases, WriteTimeoutCases, StallCases
    )
)
globals().update(on_every_transport(BodyTimeoutCases, StalledBodyCases, only=STREAMING))
