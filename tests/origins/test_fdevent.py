"""Tests of `x-wsgiorg.fdevent`, in memory with real descriptors."""

from __future__ import annotations

import os
import select
import socket
import tempfile
from typing import TYPE_CHECKING, Any

from twisted.internet.testing import StringTransport
from twisted.web.server import Site

from txgreenwsgi import ClientDisconnected, GreenWSGIResource, NotInGreenlet
from txgreenwsgi.origins import EXTENSIONS, fdevent, pauses
from txgreenwsgi.testing import MemoryClient, MemoryReactor

from .serving import GET, TEXT, ServedTestCase, copies_environ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serving import Application, Environ, StartResponse

READABLE = "x-wsgiorg.fdevent.readable"
WRITABLE = "x-wsgiorg.fdevent.writable"
TIMEOUT = "x-wsgiorg.fdevent.timeout"


def reading(fd: Any, timeout: float | None = None) -> Application:
    """Return an application that waits for `fd` and reports a timeout."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        yield environ[READABLE](fd, timeout)
        start_response("200 OK", TEXT)
        yield b"late" if environ[TIMEOUT] else b"ready"

    return app


class WaitingTests(ServedTestCase):
    """One wait, and the events that end it."""

    def test_resumed_when_readable(self) -> None:
        """The application continues once its descriptor is readable, not before."""
        ours, theirs = self.pair()
        server = self.serve(reading(ours, 10.0))
        client = self.get(server)
        server.advance(9.0)
        self.assertEqual(client.received, b"")
        theirs.send(b"x")
        server.settle()
        self.assertEqual(self.body(client), "ready")

    def test_descriptor_as_a_number(self) -> None:
        """A descriptor may be given as an int."""
        ours, theirs = self.pair()
        client = self.get(server := self.serve(reading(ours.fileno())))
        theirs.send(b"x")
        server.settle()
        self.assertEqual(self.body(client), "ready")

    def test_timeout(self) -> None:
        """After its timeout the application continues, and can detect it."""
        ours, _theirs = self.pair()
        server = self.serve(reading(ours, 2.5))
        client = self.get(server)
        server.advance(2.4)
        self.assertEqual(client.received, b"")
        server.advance(0.2)
        self.assertEqual(self.body(client), "late")

    def test_timeout_of_zero_asks(self) -> None:
        """A timeout of 0 polls, as for `select`."""
        ours, theirs = self.pair()
        server = self.serve(reading(ours, 0))
        self.assertEqual(self.body(self.get(server)), "late")
        theirs.send(b"x")
        self.assertEqual(self.body(self.get(server)), "ready")

    def test_end_of_file_is_readable(self) -> None:
        """An end of file and a hang-up count as readable."""
        ours, theirs = self.pair()
        client = self.get(server := self.serve(reading(ours)))
        theirs.close()
        server.settle()
        self.assertEqual(self.body(client), "ready")

    def test_writable(self) -> None:
        """`writable` waits until there is room."""
        ours, theirs = self.pair()
        self.fill(ours)

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            yield environ[WRITABLE](ours, 5.0)
            start_response("200 OK", TEXT)
            yield str(ours.send(b"y")).encode()

        server = self.serve(app)
        client = self.get(server)
        self.assertEqual(client.received, b"")
        while theirs.recv(1 << 20, socket.MSG_DONTWAIT):
            if select.select([], [ours], [], 0)[1]:
                break
        server.settle()
        self.assertEqual(self.body(client), "1")

    def test_regular_file(self) -> None:
        """A regular file is always ready, as for `select`."""
        with tempfile.TemporaryFile() as file:
            self.assertEqual(self.body(self.get(self.serve(reading(file)))), "ready")

    def test_closed_between_call_and_yield(self) -> None:
        """A descriptor closed before the yield does not hang the application."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            ours, theirs = socket.socketpair()
            empty = environ[READABLE](ours.fileno(), 60.0)
            ours.close()
            theirs.close()
            yield empty
            start_response("200 OK", TEXT)
            ((_fd, events),) = environ[TIMEOUT].ready
            yield b"invalid" if events & select.POLLNVAL else b"?"

        self.assertEqual(self.body(self.get(self.serve(app))), "invalid")

    def test_wrong_arguments(self) -> None:
        """Wrong arguments raise at the call, and the error names the remedy."""
        ours, _theirs = self.pair()
        closed = socket.socket()
        closed.close()
        found: list[str] = []

        def refused(environ: Environ, fd: Any, timeout: Any) -> str:
            try:
                environ[READABLE](fd, timeout)
            except (ValueError, TypeError) as error:
                return f"{type(error).__name__}: {error}"
            return "taken"

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            wrong = [(closed, None), (-1, None), (ours, -1), (ours, "soon"), ("5", 1)]
            for fd, timeout in wrong:
                found.append(refused(environ, fd, timeout))
            start_response("200 OK", TEXT)
            return [b"done"]

        self.assertEqual(self.body(self.get(self.serve(app))), "done")
        self.assertRegex(found[0], "ValueError.*no open file descriptor")
        self.assertRegex(found[1], "ValueError.*no open file descriptor")
        self.assertRegex(found[2], "ValueError.*>= 0, or None for no limit, not -1")
        self.assertRegex(found[3], "TypeError")
        self.assertRegex(
            found[4], "TypeError.*'5' is not a file descriptor: give an int"
        )

    def test_outside_a_request(self) -> None:
        """Outside a request the call raises; the timeout object is false."""
        with self.assertRaisesRegex(NotInGreenlet, r"fdevent\.readable\(\)"):
            fdevent.readable(0)
        self.assertIs(bool(fdevent.timeout), False)
        self.assertEqual(fdevent.timeout.ready, [])


class ResponseTests(ServedTestCase):
    """Waits between the blocks of a response."""

    def test_late_start_response(self) -> None:
        """Empty blocks send nothing, and start_response may follow them."""
        ours, theirs = self.pair()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            for _ in range(3):
                yield b""
                yield environ[READABLE](ours, 1.0)
            start_response("504 Gateway Timeout", TEXT)
            yield b"gone"

        server = self.serve(app)
        client = self.get(server)
        for _ in range(3):
            self.assertEqual(client.received, b"")
            server.advance(1.0)
        (response,) = client.responses()
        self.assertEqual((response.status, response.body), (504, b"gone"))
        self.assertEqual(theirs.fileno() > 0, True)

    def test_timeout_is_of_the_last_wait(self) -> None:
        """The timeout object changes with each wait, and with nothing else."""
        ours, theirs = self.pair()
        truths: list[bool] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            timeout = environ[TIMEOUT]
            start_response("200 OK", TEXT)
            truths.append(bool(timeout))
            yield environ[READABLE](ours, 1.0)
            truths.append(bool(timeout))
            yield b"a block"
            yield b""
            truths.append(bool(timeout))
            theirs.send(b"x")
            yield environ[READABLE](ours, 1.0)
            truths.append(bool(timeout))

        server = self.serve(app)
        self.get(server)
        server.advance(1.0)
        self.assertEqual(truths, [False, True, True, False])

    def test_through_middleware(self) -> None:
        """Middleware may copy environ, if it passes on empty blocks."""
        ours, theirs = self.pair()
        app = copies_environ(copies_environ(reading(ours, 3.0)))
        server = self.serve(app)
        first, second = self.get(server), None
        server.advance(3.0)
        self.assertEqual(self.body(first), "late")
        second = self.get(server)
        theirs.send(b"x")
        server.settle()
        self.assertEqual(self.body(second), "ready")

    def test_block_before_the_yield(self) -> None:
        """A non-empty block is sent; the wait is at the next empty one."""
        ours, theirs = self.pair()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            environ[READABLE](ours, 1.0)
            yield b"at once, "
            yield b""
            yield b"late" if environ[TIMEOUT] else b"ready"

        server = self.serve(app)
        client = self.get(server)
        self.assertIn(b"at once, ", client.received)
        self.assertNotIn(b"ready", client.received)
        theirs.send(b"x")
        server.settle()
        self.assertEqual(self.body(client), "at once, ready")

    def test_never_yielded(self) -> None:
        """A wait without a yield is dropped at the end of the request."""
        ours, _theirs = self.pair()

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            environ[READABLE](ours)
            start_response("200 OK", TEXT)
            return [b"done"]

        self.assertEqual(self.body(self.get(self.serve(app))), "done")

    def test_disconnect_ends_the_wait(self) -> None:
        """A disconnect closes the generator, whose `finally` block runs."""
        ours, _theirs = self.pair()
        closed: list[str] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            try:
                while True:
                    yield environ[READABLE](ours, 1.0)
            finally:
                closed.append("closed")

        server = self.serve(app)
        client = self.get(server)
        server.advance(1.5)
        self.assertEqual(closed, [])
        client.disconnect()
        self.assertEqual(closed, ["closed"])
        self.assertEqual(server.tasks, [])
        self.assertEqual(self.flushLoggedErrors(ClientDisconnected), [])

    def test_request_timeout_ends_the_wait(self) -> None:
        """A wait without a timeout is subject to the request timeout."""
        ours, _theirs = self.pair()
        server = self.serve(reading(ours), request_timeout=3.0)
        client = self.get(server)
        server.advance(4.0)
        self.assertEqual(client.responses()[0].status, 504)
        self.assertEqual(server.tasks, [])


class SeveralTests(ServedTestCase):
    """Several calls before one empty block."""

    def several(self, *fds: Any, timeouts: tuple[float | None, ...]) -> Application:
        """Return an application that waits for all and reports the ready ones."""

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            for fd, timeout in zip(fds, timeouts, strict=True):
                environ[READABLE](fd, timeout)
            yield b""
            start_response("200 OK", TEXT)
            ready = [fds.index(fd) for fd, _events in environ[TIMEOUT].ready]
            yield f"{ready} {bool(environ[TIMEOUT])}".encode()

        return app

    def test_first_ready_wins(self) -> None:
        """The first ready descriptor ends the wait, and is reported."""
        (one, to_one), (two, to_two) = self.pair(), self.pair()
        server = self.serve(self.several(one, two, timeouts=(None, None)))
        client = self.get(server)
        to_two.send(b"x")
        server.settle()
        self.assertEqual(self.body(client), "[1] False")
        to_one.send(b"x")
        self.assertEqual(self.body(self.get(server)), "[0, 1] False")

    def test_first_timeout_wins(self) -> None:
        """The lowest timeout ends the wait."""
        (one, _), (two, _) = self.pair(), self.pair()
        server = self.serve(self.several(one, two, timeouts=(5.0, 2.0)))
        client = self.get(server)
        server.advance(2.0)
        self.assertEqual(self.body(client), "[] True")

    def test_both_directions_of_one(self) -> None:
        """A descriptor can be watched for both directions; the ready one is known."""
        ours, theirs = self.pair()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            environ[READABLE](ours)
            yield environ[WRITABLE](ours)
            start_response("200 OK", TEXT)
            yield repr([events for _fd, events in environ[TIMEOUT].ready]).encode()

        server = self.serve(app)
        self.assertEqual(self.body(self.get(server)), f"[{select.POLLOUT}]")
        theirs.send(b"x")
        self.assertEqual(
            self.body(self.get(server)), f"[{select.POLLIN}, {select.POLLOUT}]"
        )


class ManyRequestsTests(ServedTestCase):
    """Concurrent and successive requests."""

    def test_each_has_its_own(self) -> None:
        """The timeout of one request is not seen by another."""
        (one, _), (two, to_two) = self.pair(), self.pair()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            first = environ["PATH_INFO"] == "/"
            yield environ[READABLE](one if first else two, 1.0 if first else 9.0)
            late = bool(environ[TIMEOUT])
            yield b""
            start_response("200 OK", TEXT)
            yield f"{late} {bool(environ[TIMEOUT])}".encode()

        server = self.serve(app)
        first = self.get(server)
        second = server.connect()
        second.send(GET.replace(b"GET /", b"GET /two"))
        server.advance(1.0)
        to_two.send(b"x")
        server.settle()
        self.assertEqual(self.body(first), "True True")
        self.assertEqual(self.body(second), "False False")

    def test_always_ready_is_no_starvation(self) -> None:
        """An application whose descriptor is always ready lets others run."""
        ours, theirs = self.pair()
        theirs.send(b"x")
        turns: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            if environ["PATH_INFO"] == "/other":
                yield b"other"
                return
            while len(turns) < 100:
                turns.append(1)
                yield environ[READABLE](ours)
            yield b"done"

        server = self.serve(app)
        spinning = server.connect()
        spinning.socket.to_server += GET
        other = server.connect()
        other.socket.to_server += GET.replace(b"GET /", b"GET /other")
        while not other.socket.to_client and not other.received:
            server.reactor.turn()
            other.received += other.socket.to_client
            other.socket.to_client.clear()
            self.assertLess(len(turns), 10)
        server.settle()
        self.assertEqual(self.body(spinning), "done")

    def test_one_descriptor_for_two_requests(self) -> None:
        """A second request that waits on the same descriptor gets a clear error."""
        ours, theirs = self.pair()
        server = self.serve(reading(ours))
        first, second = self.get(server), self.get(server)
        self.assertEqual(second.responses()[0].status, 500)
        (error,) = self.flushLoggedErrors(RuntimeError)
        self.assertIn("let one task wait for each direction", error.getErrorMessage())
        theirs.send(b"x")
        server.settle()
        self.assertEqual(self.body(first), "ready")

    def test_plain_request_has_none(self) -> None:
        """A request that waits for nothing stores no pause."""
        seen: list[int] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            yield b""
            seen.append(len(pauses.pauses_by_task))
            yield b"done"

        self.assertEqual(self.body(self.get(self.serve(app))), "done")
        self.assertEqual(seen, [0])

    def test_ten_thousand_waits(self) -> None:
        """Ten thousand waits leave no task, watcher, timer or descriptor behind."""
        ours, theirs = self.pair()

        def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
            start_response("200 OK", TEXT)
            for number in range(10_000):
                if number % 2:
                    theirs.send(b"x")
                yield environ[READABLE](ours, 60.0 if number % 2 else 0)
                if not environ[TIMEOUT]:
                    ours.recv(1)
            yield b"done"

        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0
        server = self.serve(app)
        client = self.get(server)
        for _ in range(1000):
            if not server.tasks:
                break
            server.settle()
        client.settle()
        self.assertEqual(self.body(client), "done")
        self.assertEqual(server.reactor.getReaders(), [client.transport])
        after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0
        self.assertEqual(after, before)

    def test_ten_thousand_parked_waits(self) -> None:
        """Ten thousand requests aborted while parked leave nothing behind."""
        ours, _theirs = self.pair()
        server = self.serve(reading(ours, 60.0))
        for _ in range(10_000):
            client = MemoryClient(server, float("inf"))  # not kept by the server
            client.send(GET)
            client.disconnect()
        self.assertEqual(server.tasks, [])
        self.assertEqual(server.reactor.getReaders(), [])
        self.assertEqual(pauses.pauses_by_task, {})


class ResourceTests(ServedTestCase):
    """The same behind twisted.web."""

    def test_in_a_resource(self) -> None:
        """An application in a twisted.web resource waits the same way."""
        ours, theirs = self.pair()
        reactor = MemoryReactor()
        resource = GreenWSGIResource(reading(ours, 5.0), reactor=reactor)
        transport = StringTransport()
        channel: Any = Site(resource, reactor=reactor).buildProtocol(None)
        channel.makeConnection(transport)
        channel.dataReceived(b"GET / HTTP/1.0\r\n\r\n")
        reactor.settle()
        self.assertEqual(transport.value(), b"")
        theirs.send(b"x")
        reactor.settle()
        self.assertTrue(transport.value().endswith(b"ready"), transport.value())

    def test_in_every_environ(self) -> None:
        """The keys are there without an option."""
        seen: Environ = {}

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            seen.update(environ)
            start_response("200 OK", TEXT)
            return [b""]

        self.get(self.serve(app))
        for key in EXTENSIONS:
            self.assertIn(key, seen)
        self.assertNotIn("ngx.poll", seen)
