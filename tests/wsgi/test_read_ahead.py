"""A request body received before the application is called, in memory."""

from __future__ import annotations

import hashlib
import tempfile
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txgreenwsgi import testing
from txgreenwsgi.testing import LeakCheckMixin, MemoryReactor

if TYPE_CHECKING:
    from collections.abc import Callable

    Environ = dict[str, Any]

HEAD = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


class _Pool:
    """A thread pool that works when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[bool, Any], object], Callable[[], Any]]] = []

    def callInThreadWithCallback(
        self, told: Any, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        self.jobs.append((told, lambda: function(*args, **kwargs)))

    def work(self) -> None:
        """Do one job."""
        told, job = self.jobs.pop(0)
        try:
            result = job()
        except Exception:
            told(False, Failure())
        else:
            told(True, result)


@implementer(IReactorThreads, IReactorFromThreads)
class ThreadedReactor(MemoryReactor):
    """A clock with a pool of threads."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = _Pool()

    def getThreadPool(self) -> Any:
        """For `deferToThreadPool`."""
        return self.pool

    def callFromThread(  # type: ignore[override]
        self, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Called by what looks like a thread."""
        function(*args, **kwargs)

    def callInThread(  # type: ignore[override]
        self, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Nobody does."""
        raise AssertionError

    def suggestThreadPoolSize(self, size: int) -> None:
        """Nobody does."""
        raise AssertionError


class ReadAheadTests(LeakCheckMixin, SynchronousTestCase):
    """`buffer_input`."""

    def setUp(self) -> None:
        """Nobody was called."""
        self.calls = 0

    def digest(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Answers with what it has read, piece by piece in all ways."""
        self.calls += 1
        body = environ["wsgi.input"]
        found = [body.read(3), body.readline(), environ["txgreenwsgi.recv"](environ, 5)]
        found += [*body.readlines(20), body.read(70000), body.read(), body.read(1)]
        start_response("200 OK", [("Content-Type", "text/plain")])
        whole = b"".join(found)
        return [
            f"{found[:2]} {len(whole)} {hashlib.sha256(whole).hexdigest()}".encode()
        ]

    def test_called_when_all_has_come(self) -> None:
        """The application is called when its whole body has come, and not before."""
        server = self.serve(self.digest, buffer_input=True)
        client = server.connect()
        client.send(HEAD % 6 + b"abc")
        self.assertEqual(self.calls, 0)
        client.send(b"def")
        self.assertEqual(self.calls, 1)
        self.assertTrue(client.responses()[0].body.startswith(b"[b'abc', b'def'] 6 "))

    def test_equal_results(self) -> None:
        """Whatever the framing and the size, the application reads the same."""
        for body in (b"", b"ab", b"one\ntwo\nthree\n", bytes(range(256)) * 2000):
            chunked = b"".join(
                b"%x\r\n%b\r\n" % (len(body[at : at + 999]), body[at : at + 999])
                for at in range(0, len(body), 999)
            )
            for request in (
                HEAD % len(body) + body,
                CHUNKED + chunked + b"0\r\n\r\n",
            ):
                answers = set()
                for settings in (
                    {},
                    {"buffer_input": True},
                    {"buffer_input": True, "buffer_memory": 1000},
                    {"buffer_input": True, "buffer_memory": 0},
                ):
                    client = self.serve(self.digest, **settings).connect()
                    client.send(request, piece=65536)
                    answers.add(client.responses()[0].body)
                self.assertEqual(len(answers), 1, answers)

    def test_short_bodies_need_no_file(self) -> None:
        """Up to the size no file is made, beyond it one, which is gone at the end."""
        made: list[Any] = []
        real = tempfile.TemporaryFile

        def temporary_file(**options: Any) -> Any:
            made.append(real(**options))
            return made[-1]

        self.patch(tempfile, "TemporaryFile", temporary_file)
        server = self.serve(self.digest, buffer_input=True, buffer_memory=1000)
        server.connect().send(HEAD % 1000 + bytes(1000))
        self.assertEqual(made, [])
        server.connect().send(HEAD % 1001 + bytes(1001))
        self.assertEqual([file.closed for file in made], [True])

    def test_continue(self) -> None:
        """A client that asks first is told to send, without the application."""
        server = self.serve(self.digest, buffer_input=True)
        client = server.connect()
        client.send(HEAD[:-2] % 3 + b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(client.received, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"abc")
        self.assertEqual(client.responses()[0].status, 200)

    def test_refused_before(self) -> None:
        """Too long, malformed or too slow: answered without the application."""
        for request, status in (
            (CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n", 413),
            (CHUNKED + b"2\r\nabcde", 400),
            (HEAD % 5 + b"ab", 408),
        ):
            server = self.serve(
                self.digest, buffer_input=True, max_body=10, body_timeout=3.0
            )
            client = server.connect()
            client.send(request)
            server.advance(4.0)
            self.assertEqual(client.responses()[0].status, status)
        self.assertEqual(self.calls, 0)

    def test_disconnect_before(self) -> None:
        """A client that goes before all has come never reaches the application."""
        server = self.serve(self.digest, buffer_input=True, buffer_memory=0)
        client = server.connect()
        client.send(HEAD % 5 + b"ab")
        client.disconnect()
        self.assertEqual((self.calls, server.tasks), (0, []))

    def test_reading_past_the_end(self) -> None:
        """Reading past the end gives b"" and lets others have their turn."""

        def app(environ: Environ, start_response: Any) -> list[bytes]:
            if environ["REQUEST_METHOD"] == "POST":
                while not environ["wsgi.input"].read(1) or not others:
                    pass
            else:
                others.append(1)
            start_response("200 OK", [])
            return [b"done"]

        others: list[int] = []
        server = self.serve(app, buffer_input=True)
        spinning, other = server.connect(), server.connect()
        spinning.socket.to_server += HEAD % 0
        other.socket.to_server += b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
        for _ in range(10):
            server.reactor.turn()
        self.assertEqual(others, [1])
        spinning.disconnect()

    def test_disk_is_full(self) -> None:
        """A file that cannot be written is a 500 that is logged; it is closed."""
        made: list[Any] = []
        real = tempfile.TemporaryFile

        def temporary_file(**options: Any) -> Any:
            made.append(real(**options))
            made[-1].close()
            return made[-1]

        self.patch(tempfile, "TemporaryFile", temporary_file)
        server = self.serve(self.digest, buffer_input=True, buffer_memory=0)
        client = server.connect()
        client.send(HEAD % 3 + b"abc")
        self.assertEqual(client.responses()[0].status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.calls, 0)


class ThreadTests(LeakCheckMixin, SynchronousTestCase):
    """The same where the reactor has threads."""

    def setUp(self) -> None:
        """Servers in memory get such a reactor."""
        self.patch(testing, "MemoryReactor", ThreadedReactor)

    def test_disk_is_used_in_threads(self) -> None:
        """The reactor goes on while a thread writes and reads the file."""

        def app(environ: Environ, start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            if environ["REQUEST_METHOD"] == "GET":
                return [b"other"]
            return [environ["wsgi.input"].read()]

        server = self.serve(app, buffer_input=True, buffer_memory=2)
        reactor: Any = server.reactor
        client = server.connect()
        client.send(HEAD % 6 + b"abcdef")
        jobs = 0
        while reactor.pool.jobs:
            self.assertEqual(server.request("GET").body, b"other")
            self.assertEqual(client.received, b"")
            reactor.pool.work()
            server.settle()
            jobs += 1
        self.assertEqual(client.responses()[0].body, b"abcdef")
        self.assertGreaterEqual(jobs, 3)  # written, rewound, read

    def test_disconnect_during_a_write(self) -> None:
        """A thread that writes is waited for, whatever becomes of the client."""

        def app(environ: Environ, start_response: Any) -> list[bytes]:
            raise AssertionError("its client had gone")

        server = self.serve(
            app, buffer_input=True, buffer_memory=2, on_disconnect="cancel"
        )
        reactor: Any = server.reactor
        client = server.connect()
        client.send(HEAD % 6 + b"abc")
        client.disconnect()
        self.assertEqual(len(server.tasks), 1)
        reactor.pool.work()
        server.settle()
        self.assertEqual(server.tasks, [])
