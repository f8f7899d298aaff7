"""Tests of the gateway: its calls of the application and of the sink, in order."""

from __future__ import annotations

import array
import linecache
import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Task
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._wsgi.files import FileWrapper
from txgreenwsgi._wsgi.gateway import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from txgreenwsgi._http.writer import ResponseHead

    App = Callable[..., Iterable[Any]]

TEXT = [("Content-Type", "text/plain")]


class Sink:
    """A `ResponseSink` that records its calls and fails at the call named `fail_at`."""

    def __init__(self, bodiless: bool = False, sends_files: bool = False) -> None:
        self.calls: list[Any] = []
        self.bodiless = False
        self.fail_at = ""
        self._bodiless = bodiless
        self._sends_files = sends_files

    def _record(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments) if arguments else name)
        if name == self.fail_at:
            raise ConnectionResetError

    def fields_dropped(self, names: Iterable[str], place: str) -> None:
        """Record the names, and the function of the caller's line."""
        line = linecache.getline(*self._file_and_line(place)).strip()
        self._record("fields_dropped", *names, line)

    @staticmethod
    def _file_and_line(place: str) -> tuple[str, int]:
        file, _, line = place.rpartition(":")
        return file, int(line)

    def begin_iteration(self) -> None:
        """Record the call, like all methods of `ResponseSink` below."""
        self._record("begin_iteration")

    def end_iteration(self) -> None:
        """Record the end of the iteration."""
        self._record("end_iteration")

    def begin(self, head: ResponseHead, length: int | None, block: bytes) -> None:
        """Record the head and the first block."""
        self.bodiless = self._bodiless
        self._record("begin", head.code, length, block)

    def respond(self, head: ResponseHead, block: bytes) -> None:
        """Record a response of one block, as `begin` and `finish`."""
        self.begin(head, len(block), block)
        self.finish()

    def write(self, block: bytes) -> None:
        """Record a block."""
        self._record("write", block)

    def send_file(self, head: ResponseHead | None, body: FileWrapper) -> bool:
        """Record a file."""
        self._record("send_file", head is not None)
        return self._sends_files

    def turn(self) -> None:
        """Record an empty block."""
        self._record("turn")

    def finish(self) -> None:
        """Record the end."""
        self._record("finish")


class Body:
    """An iterable that records each block and close() among the calls of the sink."""

    def __init__(self, sink: Sink, *blocks: Any) -> None:
        self.sink = sink
        self.blocks = blocks

    def __iter__(self) -> Iterator[Any]:
        for block in self.blocks:
            self.sink.calls.append(f"next {block!r}")
            yield block

    def close(self) -> None:
        """Record the call."""
        self.sink.calls.append("close")


class ServeTests(SynchronousTestCase):
    """`serve`."""

    def calls(self, app: App, sink: Sink | None = None) -> list[Any]:
        """Return the calls of the sink for the response of an application."""
        sink = sink or Sink()
        task = Task(hub_of(Clock()), serve, (app, {"sink": sink}, sink))
        task.hub.start(task)
        self.successResultOf(task.deferred())
        return sink.calls

    def body(self, *blocks: Any, status: str = "200 OK") -> App:
        """Return an application whose response is a `Body` of these blocks."""

        def app(environ: dict[str, Any], start: Any) -> Iterable[Any]:
            start(status, TEXT)
            return Body(environ["sink"], *blocks)

        return app

    def test_list_of_one(self) -> None:
        """A list of one block is sent with the head, and its length is known."""
        self.assertEqual(
            self.calls(lambda environ, start: start("200 OK", TEXT) and [b"one"]),
            [("begin", 200, 3, b"one"), "finish"],
        )

    def test_list_of_several(self) -> None:
        """The blocks of a list are sent one by one, the first with the whole length."""
        for blocks in ([b"one", b"three"], (b"one", b"three"), [b"one", b"three", b""]):
            self.assertEqual(
                self.calls(
                    lambda environ, start, b=blocks: start("200 OK", TEXT) and b
                ),
                [
                    "begin_iteration",
                    ("begin", 200, 8, b"one"),
                    ("write", b"three"),
                    "finish",
                ],
            )

    def test_empty_blocks_of_a_list(self) -> None:
        """An empty block in a list takes a turn; those after the last byte do not."""
        self.assertEqual(
            self.calls(
                lambda environ, start: (
                    start("200 OK", TEXT) and [b"", b"one", b"", b"two", b"", b""]
                )
            ),
            [
                "begin_iteration",
                "turn",
                ("begin", 200, 6, b"one"),
                "turn",
                ("write", b"two"),
                "finish",
            ],
        )
        self.assertEqual(
            self.calls(lambda environ, start: start("200 OK", TEXT) and [b"", b""]),
            ["begin_iteration", "turn", "turn", ("begin", 200, 0, b""), "finish"],
        )

    def test_long_list(self) -> None:
        """The length of a list of very many blocks is counted in several turns."""
        calls = self.calls(
            lambda environ, start: start("200 OK", TEXT) and [b"ab"] * 250_000
        )
        self.assertEqual(
            calls[:4],
            ["begin_iteration", "turn", "turn", ("begin", 200, 500_000, b"ab")],
        )
        self.assertEqual(len(calls), 250_004)

    def test_list_with_other_types(self) -> None:
        """A list with a block that is not exactly bytes has no known length."""

        class Marked(bytes):
            pass

        for block in (Marked(b"two"), ""):
            calls = self.calls(
                lambda environ, start, b=block: start("200 OK", TEXT) and [b"one", b]
            )
            self.assertEqual(calls[1], ("begin", 200, None, b"one"))

    def test_stream(self) -> None:
        """Each block is sent before the next is requested; close() is called last."""
        self.assertEqual(
            self.calls(self.body(b"one", b"", b"two")),
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

    def test_no_blocks(self) -> None:
        """A response without a block starts at its end, with length 0."""
        self.assertEqual(
            self.calls(self.body(b"", b""))[-5:],
            ["turn", ("begin", 200, 0, b""), "finish", "end_iteration", "close"],
        )

    def test_bodiless(self) -> None:
        """A response that has no body is iterated up to its first block only."""
        self.assertEqual(
            self.calls(self.body(b"", b"one", b"two"), Sink(bodiless=True))[-5:],
            [
                "next b'one'",
                ("begin", 200, None, b"one"),
                "finish",
                "end_iteration",
                "close",
            ],
        )

    def test_write(self) -> None:
        """write() sends at once; the blocks of the iterable follow."""

        def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            write(b"one")
            write(b"two")
            return [b"three"]

        self.assertEqual(
            self.calls(app),
            [
                ("begin", 200, None, b"one"),
                ("write", b"two"),
                ("write", b"three"),
                "finish",
            ],
        )

    def test_subclass_of_bytes(self) -> None:
        """A subclass of bytes is sent as plain bytes."""

        class Marked(bytes):
            pass

        (begin, _) = self.calls(
            lambda environ, start: start("200 OK", TEXT) and [Marked(b"one")]
        )
        self.assertIs(type(begin[3]), bytes)

    def test_bytes_like_blocks(self) -> None:
        """Any bytes-like object is a block, and is sent as a copy of its bytes."""
        for block in (
            bytearray(b"four"),
            memoryview(b"four"),
            memoryview(bytearray(b"f_o_u_r_"))[::2],
            memoryview(b"four").cast("H"),
            array.array("H", b"four"),
        ):
            blocks: Any
            for blocks in ([block], (block,), iter([block]), Body(Sink(), block)):
                calls = self.calls(
                    lambda environ, start, b=blocks: start("200", TEXT) and b
                )
                [begin] = [call for call in calls if call[0] == "begin"]
                self.assertEqual(begin[3], b"four")
                self.assertIs(type(begin[3]), bytes)
                if type(blocks) in (list, tuple):
                    self.assertEqual(begin[2], 4, "the length is known")

            def writing(environ: object, start: Any, block: Any = block) -> Any:
                write = start("200 OK", TEXT)
                write(block)
                write(block)
                return [block]

            self.assertEqual(
                self.calls(writing),
                [
                    ("begin", 200, None, b"four"),
                    ("write", b"four"),
                    ("write", b"four"),
                    "finish",
                ],
            )

    def test_bytes_like_blocks_of_a_list(self) -> None:
        """The length of a list of bytes-like blocks is known."""
        empty: Any
        for empty in (bytearray(), memoryview(b""), b""):
            self.assertEqual(
                self.calls(
                    lambda environ, start, empty=empty: (
                        start("200 OK", TEXT)
                        and [
                            b"one",
                            bytearray(b"two"),
                            empty,
                            memoryview(b"six"),
                            empty,
                        ]
                    )
                ),
                [
                    "begin_iteration",
                    ("begin", 200, 9, b"one"),
                    ("write", b"two"),
                    "turn",
                    ("write", b"six"),
                    "finish",
                ],
            )

    def test_block_that_is_reused(self) -> None:
        """A block is sent as it was when it was yielded."""

        def app(environ: object, start: Any) -> Iterator[bytearray]:
            start("200 OK", TEXT)
            block = bytearray(b"one")
            yield block
            block[:] = b"two"
            yield block

        calls = self.calls(app)
        self.assertEqual(calls[1:3], [("begin", 200, None, b"one"), ("write", b"two")])

    def test_wrong_blocks(self) -> None:
        """A block that is not bytes-like is refused."""
        wrong: Any
        for wrong in ("text", 1, 0, None, [b"x"], 0.5, memoryview):
            for blocks in ([wrong], [b"", wrong], iter([wrong])):
                sink = Sink()

                def app(environ: object, start: Any, blocks: Any = blocks) -> Any:
                    start("200 OK", TEXT)
                    return blocks

                error = self.assertRaises(TypeError, serve, app, {}, sink)
                self.assertIn(f"must be bytes, not {type(wrong).__name__}", str(error))

    def test_file_of_bytearrays(self) -> None:
        """The read() of a wrapped file may return any bytes-like object."""

        class File:
            def read(self, size: int) -> Any:
                return blocks.pop(0)

        blocks: list[Any] = [bytearray(b"one"), memoryview(b"two"), bytearray()]
        calls = self.calls(
            lambda environ, start: start("200 OK", TEXT) and FileWrapper(File())
        )
        self.assertEqual(calls[2:4], [("begin", 200, None, b"one"), ("write", b"two")])

    def test_dropped_fields(self) -> None:
        """The sink learns the dropped fields and the line of start_response."""

        def app(environ: object, start: Any) -> list[bytes]:
            start("200 OK", [("Keep-Alive", "5"), *TEXT, ("TE", "x")])  # this line
            return [b"x"]

        (dropped, *_) = self.calls(app)
        self.assertEqual(dropped[:3], ("fields_dropped", "Keep-Alive", "TE"))
        self.assertTrue(dropped[3].endswith("# this line"), dropped)

    def test_file(self) -> None:
        """A file is passed to the sink as a whole, then closed."""

        class File:
            def read(self, size: int) -> bytes:
                raise AssertionError("read although the sink has sent the file")

            def close(self) -> None:
                closed.append(True)

        closed: list[bool] = []
        calls = self.calls(
            lambda environ, start: start("200 OK", TEXT) and FileWrapper(File()),
            Sink(sends_files=True),
        )
        self.assertEqual(calls, [("send_file", True), "finish", "end_iteration"])
        self.assertEqual(closed, [True])

    def test_file_in_middleware(self) -> None:
        """A file wrapped by middleware, which may change it, is iterated."""

        class File:
            def read(self, size: int) -> bytes:
                return blocks.pop(0)

        blocks = [b"one", b"two", b""]
        calls = self.calls(
            lambda environ, start: (
                start("200 OK", TEXT)
                and (block.upper() for block in FileWrapper(File()))
            ),
            Sink(sends_files=True),
        )
        self.assertEqual(calls[1:3], [("begin", 200, None, b"ONE"), ("write", b"TWO")])

    def test_file_longer_than_content_length(self) -> None:
        """A file that is iterated is read up to its Content-Length."""

        class File:
            def read(self, size: int) -> bytes:
                return b"x" * size

        calls = self.calls(
            lambda environ, start: (
                start("200 OK", [("Content-Length", "5")]) and FileWrapper(File())
            )
        )
        self.assertEqual(calls[2], ("begin", 200, None, b"xxxxx"))
        self.assertEqual(calls[3:], ["finish", "end_iteration"])

    def test_failures(self) -> None:
        """If the sink raises, close() is called once and the error propagates."""
        for at in ("begin_iteration", "begin", "turn", "write", "finish"):
            sink = Sink()
            sink.fail_at = at
            app = self.body(b"one", b"", b"two")
            self.assertRaises(ConnectionResetError, serve, app, {"sink": sink}, sink)
            self.assertEqual(sink.calls.count("close"), 1, at)
            self.assertEqual(sink.calls[-2:], ["end_iteration", "close"], at)

    def test_failure_of_the_application(self) -> None:
        """If the application raises, the sink is not called."""

        def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            raise KeyError

        sink = Sink()
        self.assertRaises(KeyError, serve, app, {"sink": sink}, sink)
        self.assertEqual(sink.calls, [])

    def test_not_a_response(self) -> None:
        """A return value that is no response is refused with the remedy."""

        async def coroutine() -> list[bytes]:
            return []

        async def generator() -> AsyncIterator[bytes]:
            yield b""

        for returned, problem in [
            (
                None,
                "returned None; return an iterable of bytes, such as [b'text'] "
                "(PEP 3333); a missing return statement also returns None",
            ),
            (
                "text",
                "returned a str, 'text'; encode it and return a list: "
                "[text.encode()] (PEP 3333)",
            ),
            (
                b"text",
                "returned bytes, b'text', whose items are int; return a list with "
                "this block: [body] (PEP 3333)",
            ),
            (
                bytearray(b"text"),
                "returned bytearray, bytearray(b'text'), whose items are int; return a "
                "list with this block: [body] (PEP 3333)",
            ),
            (
                5,
                "returned 5, which is not iterable; return an iterable of bytes, such "
                "as [b'text'] (PEP 3333)",
            ),
            *(
                (
                    returned,
                    f"returned {returned!r:.80}, which is asynchronous; return an "
                    "iterable of bytes, such as [b'text'] (PEP 3333), and use "
                    "txgreenwsgi.wait() to wait for an awaitable",
                )
                for returned in (coroutine(), generator())
            ),
        ]:

            def app(environ: object, start: Any, returned: Any = returned) -> Any:
                start("200 OK", TEXT)
                return returned

            sink = Sink()
            error = self.assertRaises(TypeError, serve, app, {}, sink)
            self.assertEqual(str(error), f"the application {app!r:.80} {problem}")
            self.assertNotIn("begin_iteration", sink.calls)

    def test_iterable_by_index(self) -> None:
        """An object with `__getitem__` is iterable; an empty str has no blocks."""

        class Blocks:
            def __getitem__(self, index: int) -> bytes:
                return [b"one", b"two"][index]

        for returned, blocks in [
            (Blocks(), [b"one", b"two"]),
            *((empty, [b""]) for empty in ("", b"", bytearray(), memoryview(b""))),
        ]:

            def app(environ: object, start: Any, returned: Any = returned) -> Any:
                start("200 OK", TEXT)
                return returned

            self.assertEqual(
                [call[-1] for call in self.calls(app) if isinstance(call, tuple)],
                blocks,
            )

    def test_exc_info_is_dropped(self) -> None:
        """start_response keeps no reference to the traceback (PEP 3333)."""

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

        self.assertEqual(self.calls(app)[0][:2], ("begin", 500))
