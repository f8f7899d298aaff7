"""Tests of `buffer_input`: receive the body before the application is called."""

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
    """A thread pool whose jobs run when the test calls `work`."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[bool, Any], object], Callable[[], Any]]] = []

    def callInThreadWithCallback(
        self, on_result: Any, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        self.jobs.append((on_result, lambda: function(*args, **kwargs)))

    def work(self) -> None:
        """Run one job."""
        on_result, job = self.jobs.pop(0)
        try:
            result = job()
        except Exception:
            on_result(False, Failure())
        else:
            on_result(True, result)


@implementer(IReactorThreads, IReactorFromThreads)
class ThreadedReactor(MemoryReactor):
    """A `MemoryReactor` with a thread pool."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = _Pool()

    def getThreadPool(self) -> Any:
        """Return the pool, for `deferToThreadPool`."""
        return self.pool

    def callFromThread(  # type: ignore[override]
        self, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Call at once: the jobs run in the reactor's thread."""
        function(*args, **kwargs)

    def callInThread(  # type: ignore[override]
        self, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Fail: not used by the code under test."""
        raise AssertionError

    def suggestThreadPoolSize(self, size: int) -> None:
        """Fail: not used by the code under test."""
        raise AssertionError


class ReadAheadTests(LeakCheckMixin, SynchronousTestCase):
    """`buffer_input`."""

    def setUp(self) -> None:
        """Reset the counter of calls."""
        self.calls = 0

    def digest(self, environ: Environ, start_response: Any) -> list[bytes]:
        """An application: respond with a digest of the body, read in all ways."""
        self.calls += 1
        body = environ["wsgi.input"]
        found = [body.read(3), body.readline(), environ["txgreenwsgi.recv"](environ, 5)]
        found += [*body.readlines(20), body.read(70000), body.read(), body.read(1)]
        start_response("200 OK", [("Content-Type", "text/plain")])
        whole = b"".join(found)
        return [
            f"{found[:2]} {len(whole)} {hashlib.sha256(whole).hexdigest()}".encode()
        ]

    def test_called_when_complete(self) -> None:
        """The application is called once its whole body has arrived, not before."""
        server = self.serve(self.digest, buffer_input=True)
        client = server.connect()
        client.send(HEAD % 6 + b"abc")
        self.assertEqual(self.calls, 0)
        client.send(b"def")
        self.assertEqual(self.calls, 1)
        self.assertTrue(client.responses()[0].body.startswith(b"[b'abc', b'def'] 6 "))

    def test_equal_results(self) -> None:
        """The application reads the same data with every framing, size and setting."""
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
        """A temporary file is created only above the size, and closed at the end."""
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
        """100 Continue is sent before the application is called."""
        server = self.serve(self.digest, buffer_input=True)
        client = server.connect()
        client.send(HEAD[:-2] % 3 + b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(client.received, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"abc")
        self.assertEqual(client.responses()[0].status, 200)

    def test_refused_body(self) -> None:
        """A body too long, malformed or too slow is refused without the application."""
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

    def test_disconnect(self) -> None:
        """If the client disconnects during its body, the application is not called."""
        server = self.serve(self.digest, buffer_input=True, buffer_memory=0)
        client = server.connect()
        client.send(HEAD % 5 + b"ab")
        client.disconnect()
        self.assertEqual((self.calls, server.tasks), (0, []))

    def test_reading_past_the_end(self) -> None:
        """Reading past the end returns b"" and yields to other tasks."""

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

    def test_write_error(self) -> None:
        """A temporary file that cannot be written is answered 500 and logged."""
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
    """`buffer_input` with a reactor that has threads."""

    def setUp(self) -> None:
        """Give the servers in memory such a reactor."""
        self.patch(testing, "MemoryReactor", ThreadedReactor)

    def test_file_access_in_threads(self) -> None:
        """Other requests are served while a thread writes or reads the file."""

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
        self.assertGreaterEqual(jobs, 2)  # written, read

    def test_disconnect_during_a_write(self) -> None:
        """The task waits for a thread that is writing, even after a disconnect."""

        def app(environ: Environ, start_response: Any) -> list[bytes]:
            raise AssertionError("called after the client had disconnected")

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
