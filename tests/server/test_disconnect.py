"""Clients that disconnect: the effects on applications, and the cleanup."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from txgreenwsgi import ClientDisconnected

from .application import TEXT, application
from .wire import WireTestCase, chunked, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txgreenwsgi.testing import MemoryClient

    from .application import Environ, Start


class NoticeTests(WireTestCase):
    """The exceptions that an application gets when its client disconnects."""

    def setUp(self) -> None:
        """Create a list for the events that applications notice."""
        super().setUp()
        self.noticed: list[object] = []

    def assert_quiet(self) -> None:
        """Fail if a warning or an error was logged."""
        self.assertEqual(self.logged(LogLevel.warn), [])

    def leave(self, app: Any, request: bytes, **settings: Any) -> MemoryClient:
        """Let a client send a request and disconnect."""
        client = self.connected(app, **settings)
        client.send(request)
        client.disconnect()
        return client

    def test_while_reading(self) -> None:
        """A parked read raises: it is never silently short."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            read = getattr(environ["wsgi.input"], environ["PATH_INFO"][1:])
            try:
                read(*map(int, environ["QUERY_STRING"].split()))
            except ConnectionResetError as error:
                self.noticed.append(type(error))
                raise
            return []

        for target in ("/read", "/read?10", "/readline", "/readlines"):
            self.leave(app, get(target, "Content-Length: 9", method="POST") + b"abc")
            request = get(target, "Transfer-Encoding: chunked", method="POST")
            self.leave(app, request, chunked="stream")
        self.assertEqual(self.noticed, [ClientDisconnected] * 8)
        self.assertEqual(self.outcomes(), [(0, "disconnected")] * 8)
        self.assert_quiet()

    def test_read_goes_on_raising(self) -> None:
        """Each further read raises too."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            for _ in range(3):
                self.assertRaises(ClientDisconnected, environ["wsgi.input"].read)
                self.noticed.append("interrupted")
            return []

        self.leave(app, get("/", "Content-Length: 9", method="POST") + b"abc")
        self.assertEqual(self.noticed, ["interrupted"] * 3)
        self.flushLoggedErrors(AssertionError)

    def test_while_writing(self) -> None:
        """A disconnect interrupts a parked write()."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            try:
                write(b"x" * 100_000)
            except ConnectionResetError:
                self.noticed.append(environ["txgreenwsgi.client_disconnected"]())
                raise
            return []

        server = self.recorded(app)
        client = server.connect(room=5000)
        client.send(get("/"))
        self.assertEqual(len(server.tasks), 1)
        client.disconnect()
        self.assertEqual(self.noticed, [True])
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assert_quiet()

    def test_while_a_block_is_sent(self) -> None:
        """A disconnect interrupts a parked block of an iterable; close() is called."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            try:
                while True:
                    yield b"x" * 100_000
            finally:
                self.noticed.append("closed")

        server = self.recorded(app)
        client = server.connect(room=5000)
        client.send(get("/"))
        client.disconnect()
        self.assertEqual(self.noticed, ["closed"])
        self.assertEqual(server.tasks, [])
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assert_quiet()

    def test_send_fails(self) -> None:
        """A send that fails counts as a disconnect."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"first"
            client.socket.client_gone = True  # unnoticed so far
            self.noticed.append(environ["txgreenwsgi.client_disconnected"]())
            try:
                yield b"second"
            finally:
                self.noticed.append(environ["txgreenwsgi.client_disconnected"]())

        client = self.connected(app)
        client.send(get("/"))
        self.assertEqual(self.noticed, [False, True])
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assert_quiet()

    def test_the_only_send_fails(self) -> None:
        """A first send that fails counts as a disconnect too."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            client.socket.client_gone = True
            start("200 OK", TEXT)
            return [b"x" * int(environ["PATH_INFO"][1:])]

        for size in (1, 100_000):
            client = self.connected(app)
            client.send(get(f"/{size}") + get("/2") + get("/3"))
        self.assertEqual(self.outcomes(), [(200, "disconnected")] * 2)
        self.assert_quiet()

    def test_send_of_a_refusal_fails(self) -> None:
        """A client that leaves before its 400 leaves nothing behind."""
        client = self.connected(application)
        client.socket.to_server += b"nonsense\r\n\r\n"
        client.socket.send = self.broken  # type: ignore[method-assign]
        client.settle()
        self.assertEqual(self.outcomes(), [(400, "refused")])

    def broken(self, data: Any, flags: int = 0) -> int:
        """Fail as a send to a client that has left."""
        raise BrokenPipeError

    def test_cleanup_may_wait(self) -> None:
        """A stream's `finally` block may wait: it is not interrupted again."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            try:
                yield b"first"
                client.socket.client_gone = True
                yield b"second"
            finally:
                environ["txgreenwsgi.sleep"](1)
                self.noticed.append("cleaned up")

        server = self.recorded(app)
        client = server.connect()
        client.send(get("/"))
        server.advance(1)
        self.assertEqual(self.noticed, ["cleaned up"])
        self.assert_quiet()

    def test_in_a_stream_that_waits(self) -> None:
        """A stream that waits for another event is interrupted there."""
        for wait in (
            lambda environ: environ["txgreenwsgi.sleep"](1000),
            lambda environ: environ["txgreenwsgi.wait"](Deferred()),
            lambda environ: environ["txgreenwsgi.suspend"]().wait(),
        ):

            def app(
                environ: Environ, start: Start, wait: Any = wait
            ) -> Iterator[bytes]:
                start("200 OK", TEXT)
                yield b"first"
                try:
                    wait(environ)
                except ClientDisconnected:
                    self.noticed.append("interrupted")
                    raise
                yield b"second"

            self.leave(app, get("/"))
        self.assertEqual(self.noticed, ["interrupted"] * 3)
        self.assertEqual(self.outcomes(), [(200, "disconnected")] * 3)
        self.assert_quiet()

    def test_in_a_stream_that_goes_on(self) -> None:
        """A stream that ignores the interruption ends at its next block."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            yield b"first"
            try:
                environ["txgreenwsgi.sleep"](1000)
            except ClientDisconnected:
                self.noticed.append("ignored")
            try:
                yield b"second"
                self.noticed.append("never")
            except GeneratorExit:
                self.noticed.append("closed")
                raise

        self.leave(app, get("/"))
        self.assertEqual(self.noticed, ["ignored", "closed"])
        self.assert_quiet()

    def test_whatever_a_stream_does_next(self) -> None:
        """After the interruption the stream ends, whatever it does next."""

        def nothing() -> Iterator[bytes]:
            self.noticed.append("went on")
            yield b""
            self.noticed.append("never")

        def ends() -> Iterator[bytes]:
            self.noticed.append("went on")
            return iter(())

        for after in (nothing, ends):

            def app(
                environ: Environ, start: Start, after: Any = after
            ) -> Iterator[bytes]:
                start("200 OK", TEXT)
                yield b"first"
                with contextlib.suppress(ClientDisconnected):
                    environ["txgreenwsgi.sleep"](1000)
                yield from after()

            self.leave(app, get("/"))
        self.assertEqual(self.noticed, ["went on"] * 2)
        self.assertEqual(self.outcomes(), [(200, "disconnected")] * 2)
        self.assert_quiet()

    def test_before_a_file(self) -> None:
        """A file whose client has left is closed and not sent."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed by close()

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
            return wrapped

        server = self.recorded(app)
        client = server.connect()
        client.send(get("/"))
        client.disconnect()
        server.advance(1)
        self.assertTrue(file.closed)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assert_quiet()

    def test_in_a_stream_of_empty_blocks(self) -> None:
        """A stream that yields b"" to let others run ends at its next block."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            try:
                while True:
                    yield b""
            finally:
                self.noticed.append("closed")

        self.leave(app, get("/"))
        self.assertEqual(self.noticed, ["closed"])
        self.assert_quiet()

    def test_before_the_stream_began(self) -> None:
        """A stream whose client left before its start is closed, not started."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return Stream()

        class Stream:
            def __iter__(stream) -> Iterator[bytes]:  # noqa: N805
                self.noticed.append("began")
                return iter([b"x"])

            def close(stream) -> None:  # noqa: N805
                self.noticed.append("closed")

        server = self.recorded(app)
        client = server.connect()
        client.send(get("/"))
        client.disconnect()
        server.advance(1)
        self.assertEqual(self.noticed, ["closed"])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assert_quiet()

    def test_application_goes_on(self) -> None:
        """By default, a disconnect does not interrupt other waits."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            self.noticed.append(environ["txgreenwsgi.client_disconnected"]())
            environ["txgreenwsgi.sleep"](1)
            self.noticed.append(environ["waitress.client_disconnected"]())
            start("200 OK", TEXT)
            return [b"unsent"]

        server = self.recorded(app)
        client = server.connect()
        client.send(get("/"))
        client.disconnect()
        self.assertEqual(len(server.tasks), 1)
        server.advance(1)
        self.assertEqual(self.noticed, [False, True])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assert_quiet()

    def test_cancelled(self) -> None:
        """With --on-disconnect cancel, the wait and its Deferred are cancelled."""

        def note(_: object) -> None:
            self.noticed.append("cancelled")

        deferred: Deferred[None] = Deferred(note)

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            try:
                environ["txgreenwsgi.wait"](deferred)
            except ClientDisconnected:
                self.noticed.append("interrupted")
                raise
            return []

        self.leave(app, get("/"), on_disconnect="cancel")
        self.assertEqual(self.noticed, ["cancelled", "interrupted"])
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assert_quiet()

    def test_shielded(self) -> None:
        """A shielded block completes; the first wait after it is interrupted."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            with environ["txgreenwsgi.shield"]():
                environ["txgreenwsgi.sleep"](1)
                self.noticed.append("whole")
            try:
                environ["txgreenwsgi.sleep"](1000)
            except ClientDisconnected:
                self.noticed.append("interrupted")
                raise
            return []

        server = self.recorded(app, on_disconnect="cancel")
        client = server.connect()
        client.send(get("/"))
        client.disconnect()
        self.assertEqual(self.noticed, [])
        server.advance(1)
        self.assertEqual(self.noticed, ["whole", "interrupted"])
        self.assert_quiet()

    def test_writer_of_another_task(self) -> None:
        """The request ends even if another of its tasks was the writer."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)

            def write_on() -> None:
                try:
                    write(b"x" * 100_000)
                except ClientDisconnected:
                    self.noticed.append("writer")

            environ["txgreenwsgi.spawn"](write_on)
            try:
                environ["txgreenwsgi.sleep"](1000)
            except ClientDisconnected:
                self.noticed.append("application")
                raise
            return []

        server = self.recorded(app, on_disconnect="cancel")
        client = server.connect(room=5000)
        client.send(get("/"))
        client.disconnect()
        self.assertEqual(sorted(map(str, self.noticed)), ["application", "writer"])
        self.assertEqual(server.tasks, [])
        self.assert_quiet()

    def test_two_writers(self) -> None:
        """Two tasks that write at once get an error; blocks are not mixed."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)

            def write_too() -> None:
                for block in (b"b", b"b" * 100_000):
                    error = self.assertRaises(RuntimeError, write, block)
                    self.noticed.append(str(error))

            environ["txgreenwsgi.spawn"](write_too)
            write(b"a" * 100_000)
            return []

        server = self.recorded(app)
        client = server.connect(room=5000)
        client.send(get("/"))
        while client.read():
            pass
        self.assertEqual(self.only(client).body, b"a" * 100_000)
        message = "two tasks write the response of one request at the same time"
        self.assertEqual(self.noticed, [message] * 2)

    def test_request_ends_before_its_writer(self) -> None:
        """A task that is parked in a write at the end of the request gets an error."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", [*TEXT, ("Content-Length", "100000")])

            def write_on() -> None:
                error = self.assertRaises(ValueError, write, b"a" * 100_000)
                self.noticed.append(str(error))

            environ["txgreenwsgi.spawn"](write_on)
            environ["txgreenwsgi.sleep"](0)
            return []

        server = self.recorded(app)
        client = server.connect(room=5000)
        client.send(get("/") * 2)
        while client.read():
            pass
        self.assertEqual(self.noticed, ["the response was written to after its end"])
        self.assertEqual(self.outcomes(), [(200, "error")])
        self.assertEqual(client.received.count(b"HTTP/1.1"), 1)
        self.assertTrue(client.closed)
        [failure] = self.flushLoggedErrors(RuntimeError)
        self.assertIn("two tasks write the response", str(failure.value))

    def test_half_close(self) -> None:
        """A client that closes its sending side counts as gone."""
        client = self.connected(application)
        client.send(get("/stream?pause=1"))
        client.end()
        self.assertEqual(client.received, b"")
        self.assertTrue(client.closed)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])

    def test_half_close_behind_requests_that_do_not_wait(self) -> None:
        """Requests that need no wait are answered before the end is noticed."""
        client = self.connected(application)
        client.socket.client_closed = True
        client.send(get("/") + get("/stream"))
        self.assertEqual(len(client.responses()), 2)

    def test_pipelined_requests_are_dropped(self) -> None:
        """Requests that have not started never do."""
        client = self.connected(application)
        client.send(get("/sleep") + get("/") + get("/"))
        client.channel.transport.resumeProducing()  # as at a hang-up
        client.disconnect()
        client.server.advance(2)
        self.assertEqual(len(self.records), 1)

    def test_in_a_head(self) -> None:
        """A client that leaves within a head leaves no record."""
        for size in range(1, len(get("/")) - 1):
            client = self.connected(application)
            client.send(get("/")[:size])
            client.disconnect()
        self.assertEqual(self.records, [])
        self.assert_quiet()

    def test_at_any_byte(self) -> None:
        """A disconnect after any byte of a request leaves nothing behind."""
        for request in (
            post("/echo", b"0123456789"),
            chunked("/echo-slices?size=3", b"0123", b"456789", trailers=b"A: b\r\n"),
            get("/stream?count=3&size=3&pause=1"),
            get("/fail-after"),
        ):
            for size in range(len(request) + 1):
                server = self.recorded(application)
                client = server.connect()
                client.send(request[:size])
                client.disconnect()
                server.advance(1)
                self.assert_nothing_left(server)
                self.flushLoggedErrors()

    def test_after_any_byte(self) -> None:
        """A disconnect after any byte of a response leaves nothing behind."""
        for target in ("/stream?count=3&size=3", "/written"):
            client = self.connected(application)
            client.send(get(target))
            for size in range(len(client.received)):
                server = self.recorded(application)
                client = server.connect()
                client.disconnect_after(size)
                client.send(get(target))
                self.assert_nothing_left(server)
        self.assert_quiet()

    def test_inside_a_send(self) -> None:
        """A connection that is lost inside a send is handled like any other."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            for word in (b"one", b"two", b"three"):
                self.noticed.append(word)
                yield word

        for at in (1, 2, 3, 4):
            self.noticed.clear()
            server = self.recorded(app)
            client = server.connect()
            self.lose_at(client, at)
            client.send(get("/"))
            self.assertEqual(len(self.noticed), min(at, 3))
            self.assert_nothing_left(server)
        self.assert_quiet()

    def lose_at(self, client: MemoryClient, at: int) -> None:
        """Let the connection abort inside its nth send."""
        send = client.socket.send
        sends: list[object] = []

        def send_and_lose(data: Any, flags: int = 0) -> int:
            sends.append(data)
            if len(sends) == at:
                client.channel.abort()
                raise ConnectionResetError
            return send(data, flags)

        client.socket.send = send_and_lose  # type: ignore[method-assign]
