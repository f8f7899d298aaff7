"""The gateway: what it calls, in which order, and what it hands to the sink."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Task
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._wsgi.files import FileWrapper
from txgreenwsgi._wsgi.gateway import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from txgreenwsgi._http.writer import ResponseHead

    App = Callable[..., Iterable[Any]]

TEXT = [("Content-Type", "text/plain")]


class Sink:
    """Writes down what it is told, and fails where a test wants it to."""

    def __init__(self, bodiless: bool = False, sends_files: bool = False) -> None:
        self.told: list[Any] = []
        self.bodiless = False
        self.fail_at = ""
        self._bodiless = bodiless
        self._sends_files = sends_files

    def _tell(self, what: str, *more: Any) -> None:
        self.told.append((what, *more) if more else what)
        if what == self.fail_at:
            raise ConnectionResetError

    def begin_iteration(self) -> None:
        """Part of ResponseSink, like all that follow."""
        self._tell("begin_iteration")

    def end_iteration(self) -> None:
        """The iteration is over."""
        self._tell("end_iteration")

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        """The head and the first block."""
        self.bodiless = self._bodiless
        self._tell("begin", head.code, length, block)

    def write(self, block: bytes) -> None:
        """A further block."""
        self._tell("write", block)

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """A whole body."""
        self._tell("send_file", head is not None)
        return self._sends_files

    def turn(self) -> None:
        """An empty block."""
        self._tell("turn")

    def finish(self) -> None:
        """The end."""
        self._tell("finish")


class Body:
    """An iterable with a close(), both of which are told to the sink."""

    def __init__(self, sink: Sink, *blocks: Any) -> None:
        self.sink = sink
        self.blocks = blocks

    def __iter__(self) -> Iterator[Any]:
        for block in self.blocks:
            self.sink.told.append(f"next {block!r}")
            yield block

    def close(self) -> None:
        """Tell."""
        self.sink.told.append("close")


class ServeTests(SynchronousTestCase):
    """`serve`."""

    def told(self, app: App, sink: Sink | None = None) -> list[Any]:
        """What a sink is told of an application's response."""
        sink = sink or Sink()
        task = Task(hub_of(Clock()), serve, (app, {"sink": sink}, sink))
        task.hub.start(task)
        self.successResultOf(task.deferred())
        return sink.told

    def body(self, *blocks: Any, status: str = "200 OK") -> App:
        """An application with a `Body` of these blocks."""

        def app(environ: dict[str, Any], start: Any) -> Iterable[Any]:
            start(status, TEXT)
            return Body(environ["sink"], *blocks)

        return app

    def test_list_of_one(self) -> None:
        """The one block goes with the head, and its length is known."""
        self.assertEqual(
            self.told(lambda environ, start: start("200 OK", TEXT) and [b"one"]),
            [("begin", 200, 3, b"one"), "finish"],
        )

    def test_stream(self) -> None:
        """Each block is handed over before the next is asked for; then it is closed."""
        self.assertEqual(
            self.told(self.body(b"one", b"", b"two")),
            [
                "begin_iteration",
                "next b'one'",
                ("begin", 200, None, b"one"),
                "next b''",
                "turn",
                "next b'two'",
                ("write", b"two"),
                "finish",
                "end_iteration",
                "close",
            ],
        )

    def test_nothing(self) -> None:
        """A response without a block is begun at its end, with the length 0."""
        self.assertEqual(
            self.told(self.body(b"", b""))[-5:],
            ["turn", ("begin", 200, 0, b""), "finish", "end_iteration", "close"],
        )

    def test_bodiless(self) -> None:
        """A response that has no body is not iterated beyond its first block."""
        self.assertEqual(
            self.told(self.body(b"", b"one", b"two"), Sink(bodiless=True))[-5:],
            [
                "next b'one'",
                ("begin", 200, None, b"one"),
                "finish",
                "end_iteration",
                "close",
            ],
        )

    def test_write(self) -> None:
        """write() sends at once; the iterable goes on from there."""

        def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"one")
            write(b"two")
            return [b"three"]

        self.assertEqual(
            self.told(app),
            [
                ("begin", 200, None, b"one"),
                ("write", b"two"),
                ("write", b"three"),
                "finish",
            ],
        )

    def test_bytes_of_a_kind(self) -> None:
        """A subclass of bytes is sent as plain bytes."""

        class Marked(bytes):
            pass

        (begin, _) = self.told(
            lambda environ, start: start("200 OK", TEXT) and [Marked(b"one")]
        )
        self.assertIs(type(begin[3]), bytes)

    def test_file(self) -> None:
        """A file is offered to the sink as a whole, and closed."""

        class File:
            def read(self, size: int) -> bytes:
                raise AssertionError("the sink has sent it")

            def close(self) -> None:
                closed.append(True)

        closed: list[bool] = []
        told = self.told(
            lambda environ, start: start("200 OK", TEXT) and FileWrapper(File()),
            Sink(sends_files=True),
        )
        self.assertEqual(told, [("send_file", True), "finish", "end_iteration"])
        self.assertEqual(closed, [True])

    def test_file_in_middleware(self) -> None:
        """One that middleware has wrapped is iterated over: it may be changed there."""

        class File:
            def read(self, size: int) -> bytes:
                return blocks.pop(0)

        blocks = [b"one", b"two", b""]
        told = self.told(
            lambda environ, start: (
                start("200 OK", TEXT)
                and (block.upper() for block in FileWrapper(File()))
            ),
            Sink(sends_files=True),
        )
        self.assertEqual(told[1:3], [("begin", 200, None, b"ONE"), ("write", b"TWO")])

    def test_part_of_a_file(self) -> None:
        """One that must be read is read as far as its Content-Length says."""

        class File:
            def read(self, size: int) -> bytes:
                return b"x" * size

        told = self.told(
            lambda environ, start: (
                start("200 OK", [("Content-Length", "5")]) and FileWrapper(File())
            )
        )
        self.assertEqual(told[2], ("begin", 200, None, b"xxxxx"))
        self.assertEqual(told[3:], ["finish", "end_iteration"])

    def test_failures(self) -> None:
        """Wherever it breaks off, close() is called once, and the error passes on."""
        for at in ("begin_iteration", "begin", "turn", "write", "finish"):
            sink = Sink()
            sink.fail_at = at
            app = self.body(b"one", b"", b"two")
            self.assertRaises(ConnectionResetError, serve, app, {"sink": sink}, sink)
            self.assertEqual(sink.told.count("close"), 1, at)
            self.assertEqual(sink.told[-2:], ["end_iteration", "close"], at)

    def test_failure_of_the_application(self) -> None:
        """What was not returned is not closed."""

        def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            raise KeyError

        sink = Sink()
        self.assertRaises(KeyError, serve, app, {"sink": sink}, sink)
        self.assertEqual(sink.told, [])

    def test_exc_info_is_dropped(self) -> None:
        """start_response keeps no reference to a traceback (PEP 3333)."""

        def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            start("200 OK", TEXT)
            try:
                raise KeyError
            except KeyError:
                before = sys.getrefcount(sys.exc_info()[2])
                start("500 Oops", TEXT, sys.exc_info())
                after = sys.getrefcount(sys.exc_info()[2])
            self.assertEqual(before, after)
            return [b"x"]

        self.assertEqual(self.told(app)[0][:2], ("begin", 500))
