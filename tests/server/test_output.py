"""Sending: slow clients, files sent by the kernel, connections that break."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from typing import IO, TYPE_CHECKING, Any

from twisted.internet.tcp import Connection
from twisted.logger import LogLevel

from txgreenwsgi import NotInGreenlet
from txgreenwsgi._server import sockets

from .application import TEXT, application
from .pairs import PairClient
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start

PATTERN = bytes(range(251)) * 4177  # a little more than 1 MiB, not a power of two


class SlowReaderTests(WireTestCase):
    """Clients that read more slowly than the application sends."""

    def test_bounded_number_of_blocks(self) -> None:
        """A client that never reads gets what the kernel buffers, and no more."""
        taken: list[int] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", TEXT)
            for number in range(400):
                taken.append(number)
                yield b"x" * 65536

        server = self.serve(app)
        client = server.connect(room=200_000)
        client.send(get("/"))
        self.assertEqual(len(taken), 4)
        self.assertEqual(len(server.tasks), 1)
        # No copy of the waiting block is held.
        transport = client.transport
        self.assertEqual(len(transport.dataBuffer) + transport._tempDataLen, 0)
        server.advance(10)
        self.assertEqual(len(taken), 4)

    def test_pace_of_the_reader(self) -> None:
        """A block is requested when the client has room for it."""
        taken: list[int] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "5000")])
            for number in range(5):
                taken.append(number)
                yield b"x" * 1000

        client = self.serve(app).connect(room=1000)
        client.send(get("/"))
        while len(client.received) < 1000 or client.socket.to_client:
            self.assertLessEqual(len(taken), len(client.received) // 1000 + 2)
            client.read(100)
        self.assertEqual(len(self.only(client).body), 5000)

    def test_write_waits(self) -> None:
        """write() returns when the client has taken the earlier blocks."""
        returned: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            for number in range(3):
                write(b"x" * 3000)
                returned.append(number)
            return []

        client = self.serve(app).connect(room=4000)
        client.send(get("/"))
        self.assertEqual(returned, [0])
        client.read(3000)
        self.assertEqual(returned, [0, 1])

    def test_interrupted_in_a_block(self) -> None:
        """A block that was sent in part cuts the connection there."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"first")
            with self.assertRaises(TimeoutError), environ["txgreenwsgi.timeout"](1):
                write(b"x" * size)
            self.assertRaises(ConnectionResetError, write, b"second")
            return [b"third"]

        for size in (3000, 100_000):
            server = self.recorded(app)
            client = server.connect(room=1000)
            client.send(get("/"))
            server.advance(1)
            while client.read():
                pass
            self.assertTrue(client.reset)
            self.assertNotIn(b"second", client.received)
            self.assertIn(b"\r\n5\r\nfirst\r\n%x\r\nxxx" % size, client.received)
            self.assertTrue(client.received.endswith(b"xxx"))
            self.assertEqual(server.tasks, [])
        self.assertEqual(self.logged(LogLevel.error), [])

    def test_written_outside_a_task(self) -> None:
        """A write outside a task raises before it sends."""
        errors: list[str] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)

            def later() -> None:
                errors.append(str(self.assertRaises(NotInGreenlet, write, b"evil")))

            server.reactor.callLater(1, later)
            environ["txgreenwsgi.sleep"](2)
            return [b"good"]

        server = self.serve(app)
        client = server.connect()
        client.send(get("/"))
        server.advance(1)
        self.assertEqual(client.received, b"")
        server.advance(1)
        self.assertIn("write() was called outside a task", errors[0])
        self.assertEqual(self.only(client).body, b"good")

    def test_others_go_on(self) -> None:
        """A client that does not read blocks no other client."""
        server = self.serve(application)
        slow = server.connect(room=1000)
        slow.send(get("/stream?size=100000"))
        self.assertEqual(server.request().body, b"hello\n")

    def test_fast_reader(self) -> None:
        """A client that takes everything at once does not starve the others."""

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            if environ["PATH_INFO"] == "/":
                yield from application(environ, start)
                return
            start("200 OK", TEXT)
            while True:
                server.reactor.rightNow += 0.001  # each block takes time
                yield b"more"

        server = self.serve(app)
        fast = server.connect()
        fast.send(get("/endless"))
        self.assertEqual(server.request().body, b"hello\n")


class FileTests(WireTestCase):
    """Files sent with sendfile(), if the transport supports it."""

    def setUp(self) -> None:
        """Create a file, and an application that sends it."""
        super().setUp()
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.addCleanup(self.file.close)
        self.file.write(PATTERN)
        self.file.flush()
        self.offset = 0
        self.fields = list(TEXT)
        self.closed: list[bool] = []

    def app(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Send the file without reading it."""
        self.file.seek(self.offset)
        start("200 OK", self.fields)
        wrapped = environ["wsgi.file_wrapper"](self.file)
        wrapped.close = lambda: self.closed.append(True)
        return wrapped  # type: ignore[no-any-return]

    def ask(self, request: bytes, **settings: Any) -> PairClient:
        """Return a client that has sent a request."""
        self.server = self.recorded(self.app, **settings)
        client = PairClient(self.server)
        self.addCleanup(self.server.close)
        self.addCleanup(client.close)
        client.send(request)
        return client

    def body(self, client: PairClient) -> bytes:
        """Return the body of the only response, whose length is declared."""
        head, _, body = client.read_all().partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Length: ", head)
        return body

    def test_whole(self) -> None:
        """A file is sent whole, with its length, and closed once."""
        client = self.ask(get("/") + get("/", "Connection: close"))
        data = client.read_all()
        self.assertEqual(data.count(b"HTTP/1.1 200 OK"), 2)
        self.assertEqual(data.count(b"Content-Length: %d\r\n" % len(PATTERN)), 2)
        self.assertEqual(data.count(PATTERN), 2)
        self.assertEqual(self.closed, [True, True])
        self.assertTrue(client.ended)
        self.assertEqual(
            [record.bytes_sent for record in self.records], [len(PATTERN)] * 2
        )

    def test_kernel_does_it(self) -> None:
        """The file is not read by this process: its position stays."""
        self.ask(get("/")).read_all()
        self.assertEqual(os.lseek(self.file.fileno(), 0, os.SEEK_CUR), 0)

    def test_offset(self) -> None:
        """The file is sent from its position."""
        self.offset = 1_000_003
        self.assertEqual(self.body(self.ask(get("/"))), PATTERN[1_000_003:])

    def test_at_its_end(self) -> None:
        """A file at its end is an empty body."""
        self.offset = len(PATTERN)
        self.assertEqual(self.body(self.ask(get("/"))), b"")

    def test_head(self) -> None:
        """HEAD sends the length of the file, and no body."""
        data = self.ask(get("/", method="HEAD")).read_all()
        self.assertIn(b"Content-Length: %d\r\n" % len(PATTERN), data)
        self.assertTrue(data.endswith(b"\r\n\r\n"))
        self.assertEqual(self.closed, [True])

    def test_shorter_length(self) -> None:
        """A Content-Length below the file's sends a part of it, without an error."""
        self.offset = 10
        self.fields.append(("Content-Length", "20"))
        self.assertEqual(self.body(self.ask(get("/"))), PATTERN[10:30])
        self.assertEqual(self.logged(LogLevel.warn), [])
        self.assertEqual(self.outcomes(), [(200, "finished")])

    def test_longer_length(self) -> None:
        """A Content-Length above the file's closes the connection after it."""
        self.fields.append(("Content-Length", str(len(PATTERN) + 1)))
        client = self.ask(get("/"))
        self.assertEqual(self.body(client), PATTERN)
        self.assertTrue(client.ended)
        self.assert_logged("1 bytes before its Content-Length", level=LogLevel.error)

    def test_truncated_while_it_is_sent(self) -> None:
        """A file that is truncated meanwhile closes the connection."""
        client = self.ask(get("/"))
        os.ftruncate(self.file.fileno(), 700_000)
        self.assertLess(len(self.body(client)), len(PATTERN))
        self.assertTrue(client.ended)
        self.assert_logged("before its Content-Length", level=LogLevel.error)
        self.assertEqual(self.closed, [True])

    def test_client_leaves(self) -> None:
        """A disconnect while the head of a file waits is handled."""
        client = self.ask(get("/"))
        client.read()
        self.assertEqual(self.closed, [])
        client.close()
        self.server.settle()
        self.assertEqual(self.closed, [True])
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_client_stops_reading(self) -> None:
        """A client that stops reading is cut off after --write-timeout."""
        client = self.ask(get("/"), write_timeout=5)
        self.server.advance(5.25)
        self.assertEqual(self.closed, [True])
        self.assertEqual(self.outcomes(), [(200, "timeout")])
        client.read_all()
        self.assertTrue(client.ended)
        self.assertLess(len(client.received), len(PATTERN))

    def test_after_write(self) -> None:
        """After a write(), the file is read like any iterable."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", TEXT)(b"first, ")
            self.file.seek(0)
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](self.file)
            return wrapped

        server = self.serve(app)
        response = server.request()
        self.assertEqual(response.body, b"first, " + PATTERN)

    def test_in_memory(self) -> None:
        """Where the kernel cannot send, the file is read up to its Content-Length."""
        server = self.recorded(self.app)
        self.assertEqual(server.request().body, PATTERN)
        self.fields.append(("Content-Length", "70000"))
        self.offset = 3
        self.assertEqual(server.request().body, PATTERN[3:70003])
        self.assertEqual(self.closed, [True, True])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def with_sendfile(self, sendfile: Callable[..., int]) -> None:
        """Replace the system call."""
        self.patch(os, "sendfile", sendfile)

    def test_file_system_without_it(self) -> None:
        """A file that the kernel cannot send is read instead."""

        def sendfile(out: int, file: int, offset: int, count: int) -> int:
            raise OSError(errno.EINVAL, "not this file system")

        self.with_sendfile(sendfile)
        self.assertEqual(self.body(self.ask(get("/"))), PATTERN)
        self.assertEqual(self.outcomes(), [(200, "finished")])

    def test_disk_fails(self) -> None:
        """A disk error is logged as such, and truncates the response."""

        def fail(*args: Any) -> Any:
            raise OSError(errno.EIO, "the disk is broken")

        self.with_sendfile(fail)
        self.patch(os, "pread", fail)
        client = self.ask(get("/"))
        self.assertEqual(self.body(client), b"")
        self.assertTrue(client.ended)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.outcomes(), [(200, "error")])
        self.assertEqual(self.closed, [True])

    def test_connection_breaks(self) -> None:
        """An error of the connection is a disconnect, and logs no error."""

        def sendfile(out: int, file: int, offset: int, count: int) -> int:
            raise OSError(errno.ETIMEDOUT, "the client does not answer")

        self.with_sendfile(sendfile)
        self.ask(get("/"))
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_others_have_their_turn(self) -> None:
        """A file sent to a fast client does not starve the others."""
        turns: list[int] = []
        calls: list[int] = []

        def sendfile(out: int, file: int, offset: int, count: int) -> int:
            if not calls:
                hub.at_next_turn(lambda: turns.append(len(calls)))
            calls.append(count)
            return count  # as with a client that takes all bytes

        self.file.truncate(10 * 1024 * 1024)
        self.with_sendfile(sendfile)
        self.server = self.recorded(self.app)
        hub = self.server.hub
        client = PairClient(self.server)
        self.addCleanup(self.server.close)
        self.addCleanup(client.close)
        client.send(get("/"))
        self.assertEqual(calls, [1024 * 1024] * 10)
        self.assertEqual(turns, [1])

    def test_stopped_between_two_parts(self) -> None:
        """A disconnect between two parts of a file ends the sending."""

        def sendfile(out: int, file: int, offset: int, count: int) -> int:
            hub.at_next_turn(client.channel.abort)
            return count

        self.file.truncate(10 * 1024 * 1024)
        self.with_sendfile(sendfile)
        self.server = self.recorded(self.app)
        hub = self.server.hub
        client = PairClient(self.server)
        self.addCleanup(self.server.close)
        self.addCleanup(client.close)
        client.send(get("/"))
        self.assertEqual(self.closed, [True])
        self.assertEqual(self.outcomes(), [(200, "disconnected")])


class BusyKernelTests(WireTestCase):
    """A kernel whose buffers are full at first."""

    def busy(self, server: MemoryServer) -> PairClient:
        """Return a client to which each system call sends nothing the first time."""

        class Busy:
            def __init__(busy, skt: Any) -> None:  # noqa: N805
                busy.skt = skt
                busy.refused: set[str] = set()

            def __getattr__(busy, name: str) -> Any:  # noqa: N805
                method = getattr(busy.skt, name)
                if name not in ("send", "sendmsg") or name in busy.refused:
                    return method
                busy.refused.add(name)
                return refuse

        def refuse(*args: Any) -> int:
            raise BlockingIOError

        def handle(connection: Connection) -> Any:
            return Busy(connection.socket)

        self.patch(Connection, "getHandle", handle)
        client = PairClient(server)
        self.addCleanup(server.close)
        self.addCleanup(client.close)
        return client

    def test_responses(self) -> None:
        """Responses of every kind arrive whole."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(PATTERN)
            file.flush()
            for request, end in (
                (get("/"), b"hello\n"),
                (get("/stream?count=1&size=100000"), b"A" * 100_000 + b"\r\n0\r\n\r\n"),
                (get(f"/file?path={file.name}"), PATTERN),
                (b"nonsense\r\n\r\n", b"method\n"),
            ):
                client = self.busy(self.serve(application))
                client.send(request)
                data = client.read_all()
                self.assertEqual(data.count(b"HTTP/1.1 "), 1)
                self.assertEqual(data[-len(end) :], end)

    def test_client_leaves(self) -> None:
        """A disconnect while the head of a file waits is handled."""
        with tempfile.NamedTemporaryFile() as file:
            client = self.busy(self.recorded(application))
            self.patch(client.transport, "startWriting", lambda: None)
            file.write(PATTERN)
            file.flush()
            client.send(get(f"/file?path={file.name}"))
            client.close()
            client.server.settle()
        self.assertEqual(self.outcomes(), [(200, "disconnected")])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_two_writers(self) -> None:
        """While a file waits to be sent, another task of the request cannot send."""
        errors: list[Exception] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed by close()
            file.write(PATTERN)
            file.seek(0)

            def write_too() -> None:
                errors.append(self.assertRaises(RuntimeError, write, b"evil"))

            environ["txgreenwsgi.spawn"](write_too)
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
            return wrapped

        server = self.serve(app)
        client = PairClient(server)
        self.addCleanup(server.close)
        self.addCleanup(client.close)
        client.send(get("/"))
        self.assertEqual(client.read_all()[-len(PATTERN) :], PATTERN)
        self.assertEqual(len(errors), 1)


class PairTests(WireTestCase):
    """Kernel behaviour, on a pair of real sockets."""

    def pair(self, app: Any = application, **settings: Any) -> PairClient:
        """Return a client of a new server."""
        self.server = self.recorded(app, **settings)
        client = PairClient(self.server)
        self.addCleanup(self.server.close)
        self.addCleanup(client.close)
        return client

    def test_addresses(self) -> None:
        """A UNIX socket has no addresses; the server's name and port are not empty."""
        client = self.pair()
        client.send(get("/environ", "Connection: close"))
        answer = client.read_all()
        for part in (
            b'"SERVER_NAME": "localhost"',
            b'"SERVER_PORT": "80"',
            b'"REMOTE_ADDR": ""',
            b'"REMOTE_PORT": ""',
        ):
            self.assertIn(part, answer)

    def test_large_blocks(self) -> None:
        """Blocks beyond the kernel's buffer arrive whole."""
        for count, size in ((5, 1_000_001), (1, 3_000_001)):
            client = self.pair()
            client.send(get(f"/stream?count={count}&size={size}", "Connection: close"))
            _, _, body = client.read_all().partition(b"\r\n\r\n")
            blocks = [bytes([65 + number]) * size for number in range(count)]
            expected = [b"%x\r\n%b\r\n" % (size, block) for block in blocks]
            self.assertTrue(body == b"".join(expected) + b"0\r\n\r\n")

    def test_response_is_not_lost(self) -> None:
        """An early response reaches a client that still sends (RFC 9112 9.6)."""
        client = self.pair()
        client.send(get("/unread", "Content-Length: 5000000", method="POST"))
        for _ in range(100):
            client.send(b"x" * 50_000)
        self.assertIn(b"403 Forbidden", client.read_all())
        self.assertTrue(client.ended)

    def test_requests_behind_the_last(self) -> None:
        """A response is not lost if requests behind it stay unanswered."""
        client = self.pair()
        request = get("/stream?size=100000&count=10", version="HTTP/1.0")
        client.send(request + get("/") * 3000)
        data = client.read_all()
        self.assertEqual(data.partition(b"\r\n\r\n")[2].count(b"J"), 100_000)

    def test_hang_up_while_reading_is_paused(self) -> None:
        """A disconnect while reading is paused is noticed."""
        client = self.pair(on_disconnect="cancel", input_window=1000)
        client.send(get("/sleep", "Content-Length: 90000", method="POST") + b"x" * 9000)
        self.assertTrue(client.channel.reading_paused)
        self.assertEqual(self.records, [])
        client.close()
        self.server.settle()
        self.assertEqual(self.outcomes(), [(0, "disconnected")])
        self.assert_nothing_left(self.server)

    def test_hang_up_behind_pipelined_requests(self) -> None:
        """It is noticed behind pipelined requests too."""
        client = self.pair(on_disconnect="cancel")
        client.send(get("/sleep") + get("/") * 3)
        self.assertTrue(client.channel.reading_paused)
        client.socket.shutdown(socket.SHUT_WR)
        self.server.settle()
        self.assertEqual(self.outcomes(), [(0, "disconnected")])

    def test_watches_end(self) -> None:
        """After a pause, connections are watched by the same object again."""
        client = self.pair(input_window=1000)
        others = [PairClient(self.server) for _ in range(3)]
        clients = [client, *others]
        for each in clients:
            self.addCleanup(each.close)
            each.send(
                get(
                    "/echo-slices?pause=1&size=9000",
                    "Content-Length: 9000",
                    method="POST",
                )
            )
            each.send(b"x" * 9000)
        self.assertEqual({each.channel.reading_paused for each in clients}, {True})
        self.assertEqual(len(self.server.reactor.getReaders()), 1)
        others[0].close()
        self.server.advance(1)
        self.server.advance(1)
        self.assertEqual(len(self.records), 4)
        self.assertEqual(self.server.reactor.getReaders(), [self.server.site.sockets])
        for each in (client, *others[1:]):
            self.assertFalse(each.channel.reading_paused)
            each.received = b""
            each.send(get("/"))
            self.assertIn(b"200 OK", each.read_all())

    def test_platform_without_epoll(self) -> None:
        """Without epoll, a disconnect is noticed at the next read."""
        self.patch(sockets, "kernel_epoll", None)
        client = self.pair(on_disconnect="cancel", input_window=1000)
        client.send(get("/sleep", "Content-Length: 9000", method="POST") + b"x" * 9000)
        client.close()
        self.server.settle()
        self.assertEqual(self.records, [])
        self.server.advance(1)
        self.server.settle()
        self.assertEqual(len(self.records), 1)
