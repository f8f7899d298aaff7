"""Faults of applications and observers: one log line each, and no side effects.

Whatever an application does when the server calls it, the log has one line that names
the request, its client gets a 500 or a truncated response, and concurrent and later
requests are unaffected.
"""

from __future__ import annotations

import gc
import io
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txgreenwsgi import spawn
from txgreenwsgi.testing import LeakCheckMixin

from .logged import Logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.logger import LogEvent

    from txgreenwsgi.testing import MemoryClient, MemoryServer

    Environ = dict[str, Any]
    Start = Callable[..., Any]

FAULT = b"GET /fault HTTP/1.1\r\nHost: x\r\n\r\n"
BESIDE = b"GET /beside HTTP/1.1\r\nHost: x\r\n\r\n"


class Fault(Exception):
    """The exception of the faults."""


class Unspeakable(Exception):
    """An exception whose repr() and str() fail."""

    def __str__(self) -> str:
        raise Fault("__str__")

    __repr__ = __str__


class Body:
    """The iterable of a response, each part of which can fail.

    Args:
        blocks: the blocks; an exception among them is raised.
        iter_error: raised by `iter()`.
        close_error: raised by `close()`.
    """

    def __init__(
        self,
        *blocks: bytes | BaseException,
        iter_error: BaseException | None = None,
        close_error: BaseException | None = None,
    ) -> None:
        self._blocks = iter(blocks)
        self._iter_error = iter_error
        self._close_error = close_error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        if self._iter_error is not None:
            raise self._iter_error
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        if isinstance(block, BaseException):
            raise block
        return block

    def close(self) -> None:
        """Count the calls."""
        self.closed += 1
        if self._close_error is not None:
            raise self._close_error


def _raising(error: BaseException) -> Callable[[Environ, Start], Any]:
    def app(environ: Environ, start_response: Start) -> Any:
        raise error

    return app


def _returning(make: Callable[[], Any]) -> Callable[[Environ, Start], Any]:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return make()

    return app


def _recursive(environ: Environ, start_response: Start) -> Any:
    return _recursive(environ, start_response)


def _never_started(environ: Environ, start_response: Start) -> Any:
    return [b"no head"]


def _after_write(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", [])(b"some")
    raise Fault("after write()")


def _text_to_write(environ: Environ, start_response: Start) -> Any:
    start_response("200 OK", [])("text")
    return []


def _wrapped(make: Callable[[], Any]) -> Callable[[Environ, Start], Any]:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](make())

    return app


class _File(io.BytesIO):
    def __init__(self, **errors: BaseException) -> None:
        super().__init__(b"content")
        self._errors = errors

    def _fail(self, name: str) -> None:
        if name in self._errors:
            raise self._errors[name]

    def read(self, size: int | None = -1, /) -> bytes:
        self._fail("read")
        return super().read(size)

    def fileno(self) -> int:
        self._fail("fileno")
        return super().fileno()

    def close(self) -> None:
        # Once: its finalizer calls this again, and would print the error to stderr.
        error = self._errors.pop("close", None)
        if error is not None:
            raise error


class _Uncloseable(Body):
    @property
    def close(self) -> Any:
        raise Fault("close is no attribute of mine")


def _stubborn() -> Iterator[bytes]:
    try:
        yield b"some"
        raise Fault("the second block")
    finally:
        # Python raises "generator ignored GeneratorExit".
        yield b"more"


def _endless_context() -> Iterator[bytes]:
    raise Fault("before the first block")
    yield b""


#: Faults of applications, and whether a head has been sent before each.
FAULTS: dict[str, tuple[Callable[[Environ, Start], Any], bool]] = {
    "the call raises": (_raising(Fault("in the call")), False),
    "the call raises an exception whose repr() fails": (_raising(Unspeakable()), False),
    "the call raises OSError, as a database driver does": (
        _raising(ConnectionResetError("the database is gone")),
        False,
    ),
    "the call raises StopIteration": (_raising(StopIteration()), False),
    "the call raises MemoryError": (_raising(MemoryError()), False),
    "the call raises SystemExit": (_raising(SystemExit(3)), False),
    "the call raises KeyboardInterrupt": (_raising(KeyboardInterrupt()), False),
    "the call raises GeneratorExit": (_raising(GeneratorExit()), False),
    "the call raises GreenletExit": (_raising(GreenletExit()), False),
    "the call calls itself for ever": (_recursive, False),
    "nothing is returned": (_returning(lambda: None), False),
    "a number is returned": (_returning(lambda: 7), False),
    "text is returned": (_returning(lambda: "text"), False),
    "a list of text is returned": (_returning(lambda: ["text"]), False),
    "a list with None is returned": (_returning(lambda: [None, None]), False),
    "start_response is not called": (_never_started, False),
    "write() is given text": (_text_to_write, False),
    "the application raises behind write()": (_after_write, True),
    "iter() raises": (_returning(lambda: Body(iter_error=Fault("iter"))), False),
    "the first block raises": (_returning(lambda: Body(Fault("first"))), False),
    "a generator raises at once": (_returning(_endless_context), False),
    "the second block raises": (
        _returning(lambda: Body(b"some", Fault("second"))),
        True,
    ),
    "the second block raises SystemExit": (
        _returning(lambda: Body(b"some", SystemExit(1))),
        True,
    ),
    "the second block is text": (
        _returning(lambda: Body(b"some", "text")),  # type: ignore[arg-type]
        True,
    ),
    "a generator ignores GeneratorExit": (_returning(_stubborn), True),
    "a file cannot be read": (_wrapped(lambda: _File(read=Fault("read"))), False),
    "a file fails when asked for its descriptor": (
        _wrapped(lambda: _File(fileno=Fault("fileno"))),
        False,
    ),
    "a file has no read()": (_wrapped(lambda: object()), False),
}

#: Faults after the whole response was sent.
LATE_FAULTS: dict[str, Callable[[Environ, Start], Any]] = {
    "close() raises": _returning(lambda: Body(b"all", close_error=Fault("close"))),
    "close() raises SystemExit": _returning(
        lambda: Body(b"all", close_error=SystemExit(1))
    ),
    "close() raises an exception whose repr() fails": _returning(
        lambda: Body(b"all", close_error=Unspeakable())
    ),
    "the attribute close raises": _returning(lambda: _Uncloseable(b"all")),
    "a file cannot be closed": _wrapped(lambda: _File(close=Fault("close"))),
}


class FaultCase(LeakCheckMixin, SynchronousTestCase):
    """A server whose `/fault` fails, beside requests that do not."""

    def setUp(self) -> None:
        """Collect the log."""
        self.logged = Logged(self)

    def serve_fault(
        self, fault: Callable[[Environ, Start], Any], **settings: Any
    ) -> MemoryServer:
        """Return a server with `/fault`, and `/beside`, which takes a second."""

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/fault":
                blocks: Iterable[bytes] = fault(environ, start_response)
                return blocks
            environ["txgreenwsgi.sleep"](1)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"unharmed"]

        return self.serve(app, **settings)

    def assert_unharmed(self, server: MemoryServer, before: MemoryClient) -> None:
        """Fail unless the request beside it and a new one are answered."""
        after = server.connect()
        after.send(BESIDE)
        server.advance(1)
        for client in (before, after):
            [response] = client.responses()
            self.assertEqual((response.status, response.body), (200, b"unharmed"))
            self.assertFalse(client.closed)


class ApplicationFaultTests(FaultCase):
    """Exceptions at each place where the server calls an application."""

    def test_faults(self) -> None:
        """Each fault is one log line with the request, and a 500 or a cut body."""
        for sentence, (fault, sent) in FAULTS.items():
            server = self.serve_fault(fault)
            beside, client = server.connect(), server.connect()
            beside.send(BESIDE)
            client.send(FAULT)
            errors = self.logged.errors()
            self.assertEqual(len(errors), 1, (sentence, errors))
            self.assertIn("GET /fault (request ", errors[0], sentence)
            self.assertTrue(client.closed, sentence)
            if sent:
                # No last chunk: the client detects the truncation.
                self.assertIn(b"some", client.received, sentence)
                self.assertNotIn(b"0\r\n\r\n", client.received, sentence)
            else:
                [response] = client.responses()
                self.assertEqual(response.status, 500, sentence)
            self.assert_unharmed(server, beside)
            self.assertEqual(self.logged.errors(), [], sentence)

    def test_late_faults(self) -> None:
        """A fault after the whole response is logged; the client is unaffected."""
        for sentence, fault in LATE_FAULTS.items():
            server = self.serve_fault(fault)
            beside, client = server.connect(), server.connect()
            beside.send(BESIDE)
            client.send(FAULT)
            errors = self.logged.errors()
            self.assertEqual(len(errors), 1, (sentence, errors))
            self.assertIn("GET /fault (request ", errors[0], sentence)
            [response] = client.responses()
            self.assertEqual(response.status, 200, sentence)
            self.assertIn(response.body, (b"all", b"content"), sentence)
            self.assert_unharmed(server, beside)

    def test_two_faults(self) -> None:
        """An iterable whose iteration and close() both fail has two log lines."""
        body = Body(b"some", Fault("second"), close_error=Fault("close"))
        server = self.serve_fault(_returning(lambda: body))
        beside, client = server.connect(), server.connect()
        beside.send(BESIDE)
        client.send(FAULT)
        self.assertEqual(body.closed, 1)
        self.assertEqual(len(self.logged.errors()), 2)
        self.assertTrue(client.closed)
        self.assert_unharmed(server, beside)

    def test_fault_of_a_spawned_task(self) -> None:
        """A fault of a spawned task affects that task only."""

        def fail() -> None:
            raise Fault("in a task of its own")

        def fault(environ: Environ, start_response: Start) -> Iterable[bytes]:
            spawn(fail)
            start_response("200 OK", [])
            return [b"all"]

        server = self.serve_fault(fault)
        beside, client = server.connect(), server.connect()
        beside.send(BESIDE)
        client.send(FAULT)
        self.assertEqual(client.responses()[0].body, b"all")
        # A task that failed is logged when it is collected: until then its result may
        # still be asked for.
        gc.collect()
        [error] = self.logged.errors()
        self.assertIn("its error was never handled", error)
        self.assert_unharmed(server, beside)

    def test_many_faults(self) -> None:
        """Two hundred failed requests leave two hundred lines and nothing else."""
        server = self.serve_fault(_raising(Fault("again")))
        beside = server.connect()
        beside.send(BESIDE)
        for _ in range(200):
            server.connect().send(FAULT)
        self.assertEqual(len(self.logged.errors()), 200)
        self.assertEqual(len(server.tasks), 1)
        self.assert_unharmed(server, beside)


class ObserverFaultTests(FaultCase):
    """Faults of observers."""

    def test_observer_of_requests(self) -> None:
        """A failing observer is logged; the others get the record."""
        records: list[object] = []

        def failing(record: object) -> None:
            raise Fault("in an observer")

        def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
            start_response("200 OK", [])
            return [b"fine"]

        server = self.serve(app, observers=[failing, records.append])
        for count in range(1, 4):
            self.assertEqual(server.request().body, b"fine")
            [error] = self.logged.errors()
            self.assertIn(" failed", error)
            self.assertEqual(len(records), count)

    def test_observer_of_the_log(self) -> None:
        """A failing log observer affects no request."""

        @implementer(ILogObserver)
        def failing(event: LogEvent) -> None:
            if str(event.get("log_namespace", "")).startswith("txgreenwsgi"):
                raise Fault("in a log observer")

        globalLogPublisher.addObserver(failing)
        self.addCleanup(globalLogPublisher.removeObserver, failing)
        server = self.serve_fault(_raising(Fault("in the call")))
        beside, client = server.connect(), server.connect()
        beside.send(BESIDE)
        client.send(FAULT)
        self.assertEqual(client.responses()[0].status, 500)
        refused = server.connect()
        refused.send(b"what?\r\n\r\n")
        self.assertEqual(refused.responses()[0].status, 400)
        self.assert_unharmed(server, beside)
        self.assertIn("GET /fault (request ", self.logged.errors()[0])
