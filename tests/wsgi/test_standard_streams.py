"""Tests of `sys.stdout` and `sys.stderr` for applications."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from contextvars import Context
from typing import IO, TYPE_CHECKING, Any
from unittest.mock import patch

from twisted.logger import (
    ILogObserver,
    Logger,
    LoggingFile,
    LogLevel,
    LogPublisher,
    formatEvent,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txgreenwsgi._wsgi.errors import Errors, current_errors
from txgreenwsgi._wsgi.standard_streams import (
    LogStream,
    end_partial_lines,
    replace_standard_streams,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.logger import LogEvent


@implementer(ILogObserver)
class Lines:
    """An observer that collects formatted events."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Keep the event."""
        self.events.append(event)

    @property
    def found(self) -> list[str]:
        """The messages."""
        return [formatEvent(event) for event in self.events]


class LogStreamTests(SynchronousTestCase):
    """A `LogStream` whose original writes to a temporary file."""

    def setUp(self) -> None:
        """Create a stream and collect its log lines."""
        self.file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.addCleanup(self.file.close)
        self.observer = Lines()
        self.publisher = LogPublisher(self.observer)
        self.stream = self.make(self.file)

    def make(self, original: IO[str] | None, fd: int = 1) -> LogStream:
        """Return a stream in the place of `original`."""
        logger = Logger("stdout", observer=self.publisher)
        return LogStream(LoggingFile(logger, LogLevel.warn), original, fd)

    @property
    def lines(self) -> list[str]:
        """The lines logged so far."""
        return self.observer.found

    @property
    def bypassed(self) -> str:
        """The text written to the descriptor."""
        self.file.seek(0)
        return self.file.read()

    def test_lines(self) -> None:
        """Each line is an event with the namespace and level of twistd's stream."""
        print("one\ntwo", file=self.stream)
        self.assertEqual(self.lines, ["one", "two"])
        event = self.observer.events[0]
        self.assertEqual(event["log_namespace"], "stdout")
        self.assertIs(event["log_level"], LogLevel.warn)
        self.assertEqual(event["log_io"], "one")

    def test_partial_lines(self) -> None:
        """The parts of a line are one event."""
        print("a", "b", sep="-", end="", file=self.stream)
        self.assertEqual(self.lines, [])
        self.stream.write("c\nd")
        self.stream.writelines(["e", "\n", "f"])
        self.assertEqual(self.lines, ["a-bc", "de"])

    def test_flush(self) -> None:
        """A flush logs the partial line; without one it is a no-op."""
        print(".", end="", flush=True, file=self.stream)
        self.stream.flush()
        self.assertEqual(self.lines, ["."])

    def test_empty_lines(self) -> None:
        """Empty lines are events; an empty string is not."""
        self.stream.write("\n\n")
        self.stream.write("")
        self.stream.buffer.write(b"")
        self.stream.flush()
        self.assertEqual(self.lines, ["", ""])

    def test_carriage_returns(self) -> None:
        """The ends of lines of other systems and of progress bars are removed."""
        self.stream.write("a\r\n\r50 %\r\n")
        self.assertEqual(self.lines, ["a", "50 %"])

    def test_long_line(self) -> None:
        """An endless line is logged in pieces."""
        for _ in range(40):
            self.stream.write("x" * 1000)
        self.stream.buffer.write(b"\n")
        self.assertEqual("".join(self.lines), "x" * 40_000)
        self.assertLess(max(map(len, self.lines)), 20_000)

    def test_braces(self) -> None:
        """Text is not a format."""
        self.stream.write("{x} %s {\n")
        self.assertEqual(self.lines, ["{x} %s {"])

    def test_type(self) -> None:
        """Libraries recognise a text stream with a binary buffer."""
        stream = self.stream
        self.assertIsInstance(stream, io.TextIOWrapper)
        self.assertIsInstance(stream.buffer, io.BufferedIOBase)
        self.assertEqual(
            (stream.encoding, stream.errors, stream.newlines, stream.mode),
            ("utf-8", "backslashreplace", None, "w"),
        )
        self.assertEqual(
            (stream.name, self.make(None, 2).name), ("<stdout>", "<stderr>")
        )
        self.assertTrue(stream.line_buffering)
        self.assertTrue(stream.writable())
        self.assertTrue(stream.buffer.writable())
        self.assertFalse(stream.isatty())
        either: Any
        for either in (stream, stream.buffer):
            self.assertFalse(either.readable())
            self.assertFalse(either.seekable())
            self.assertRaises(io.UnsupportedOperation, either.read)
            self.assertRaises(io.UnsupportedOperation, either.seek, 0)
            self.assertRaises(io.UnsupportedOperation, either.tell)
            self.assertRaises(OSError, either.truncate)

    def test_wrong_types(self) -> None:
        """The text stream refuses bytes and the buffer text: libraries probe for it."""
        write: Callable[[Any], object] = self.stream.write
        wrong: object
        for wrong in (b"", None, 1):
            self.assertRaises(TypeError, write, wrong)
        write = self.stream.buffer.write
        for wrong in ("", None, 1):
            self.assertRaises(TypeError, write, wrong)
        self.assertEqual(self.lines, [])

    def test_returned_lengths(self) -> None:
        """`write` returns characters, and bytes for the buffer."""
        self.assertEqual(self.stream.write("é\ud800\n"), 3)
        write: Any = self.stream.buffer.write
        self.assertEqual(write("é\n".encode()), 3)
        self.assertEqual(write(memoryview(b"abcd")[::2]), 2)

    def test_bytes(self) -> None:
        """Any bytes-like object is logged, whole characters at a time."""
        buffer: Any = self.stream.buffer
        buffer.write(bytearray(b"a\xc3"))
        buffer.write(memoryview(b"\xa9\n"))
        self.assertEqual(self.lines, ["aé"])
        buffer.raw.write(b"raw\n")
        self.assertEqual(self.lines[-1], "raw")

    def test_broken_bytes(self) -> None:
        """Bytes that are not text are escaped, also before text or at the end."""
        self.stream.buffer.write(b"\xff\n\xc3")
        self.stream.write("x\n")
        self.stream.buffer.write(b"y\xc3")
        self.stream.flush()
        self.assertEqual(self.lines, ["\\xff", "\\xc3x", "y\\xc3"])

    def test_text_and_bytes_in_one_line(self) -> None:
        """The order of text and bytes is kept without a flush."""
        self.stream.write("a")
        self.stream.buffer.write(b"b")
        self.stream.write("c\n")
        self.assertEqual(self.lines, ["abc"])

    def test_surrogates(self) -> None:
        """A lone surrogate is escaped: the log's file could not encode it."""
        self.stream.write("\ud800é中\n")
        self.assertEqual(self.lines, ["\\ud800é中"])

    def test_reconfigure(self) -> None:
        """An encoding and an error handler of the application are effective."""
        self.stream.reconfigure(encoding="latin-1", errors="strict")
        self.assertEqual(
            (self.stream.encoding, self.stream.errors), ("latin-1", "strict")
        )
        self.assertRaises(UnicodeEncodeError, self.stream.write, "中\n")
        self.stream.write("é\n")
        self.stream.buffer.write(b"\xe9\n")
        self.stream.reconfigure(errors="replace", line_buffering=False)
        self.stream.write("中\n")
        self.assertEqual(self.lines, ["é", "é", "?"])

    def test_wide_encoding(self) -> None:
        """Lines end at characters, not at bytes."""
        self.stream.reconfigure(encoding="utf-16")
        self.stream.write("a\u0a0a\n")
        self.stream.buffer.write("b\u0a0a\n".encode("utf-16"))
        self.assertEqual(self.lines, ["a\u0a0a", "b\u0a0a"])

    def test_wrapped_buffer(self) -> None:
        """A wrapper around the buffer works; its end does not close the buffer."""
        wrapper = io.TextIOWrapper(self.stream.buffer, "utf-8", line_buffering=True)
        wrapper.write("é\n")
        wrapper.write("tail")
        del wrapper
        gc.collect()
        self.stream.write("more\n")
        self.assertEqual(self.lines, ["é", "tail", "more"])

    def test_detach(self) -> None:
        """After `detach`, the stream raises and the buffer works."""
        buffer = self.stream.detach()
        self.assertRaises(ValueError, self.stream.write, "x")
        self.assertRaises(ValueError, self.stream.flush)
        buffer.write(b"x\n")
        self.assertEqual(self.lines, ["x"])

    def test_close(self) -> None:
        """A library that closes the stream flushes it: other requests print, too."""
        self.stream.write("a")
        with self.stream:
            self.stream.write("b")
        self.stream.close()
        self.stream.buffer.close()
        self.assertFalse(self.stream.closed)
        self.stream.write("c\n")
        self.assertEqual(self.lines, ["ab", "c"])

    def test_descriptor(self) -> None:
        """The descriptor is that of the original stream."""
        self.assertEqual(self.stream.fileno(), self.file.fileno())
        self.assertEqual(self.stream.buffer.fileno(), self.file.fileno())
        subprocess.run(["echo", "from child"], stdout=self.stream, check=True)
        self.assertEqual(self.bypassed, "from child\n")
        faulthandler.dump_traceback(self.stream, all_threads=False)
        self.assertIn("test_descriptor", self.bypassed)

    def test_no_descriptor(self) -> None:
        """Without an original stream, the descriptor is the null device."""
        closed = open(os.devnull, "w")  # noqa: SIM115
        closed.close()
        for original in (None, closed, io.StringIO()):
            # A descriptor of another file in the place of a standard one.
            stream = self.make(original, self.file.fileno())
            fd = stream.fileno()
            self.assertEqual(stream.fileno(), fd)
            self.addCleanup(os.close, fd)
            null = os.stat(os.devnull)
            self.assertTrue(os.path.samestat(os.fstat(fd), null))

    def test_observer_that_prints(self) -> None:
        """An observer that prints writes to the descriptor, not to the log again."""

        @implementer(ILogObserver)
        def echo(event: LogEvent) -> None:
            print("logged:", formatEvent(event), file=self.stream)
            self.stream.buffer.write(b"bytes\n")

        other = self.make(self.file, 2)
        self.publisher.addObserver(echo)
        self.stream.write("é\n")
        other.write("other\n")
        self.assertEqual(self.lines, ["é", "other"])
        self.assertEqual(self.bypassed, "logged: é\nbytes\nlogged: other\nbytes\n")
        self.stream.write("again\n")
        self.assertEqual(self.lines, ["é", "other", "again"])

    def test_observer_that_raises(self) -> None:
        """A failing observer does not reach the code that prints."""

        @implementer(ILogObserver)
        def fail(event: LogEvent) -> None:
            if event["log_namespace"] == "stdout":
                raise OSError("disk full")

        self.publisher.addObserver(fail)
        self.stream.write("x\n")
        self.assertEqual(self.lines[0], "x")

    def test_threads(self) -> None:
        """Parts of lines that several threads print at once are not mixed."""
        barrier = threading.Barrier(8)

        def run(name: str) -> None:
            barrier.wait()
            for _ in range(200):
                for _ in range(5):
                    self.stream.write(name)
                self.stream.write("\n")

        threads = [threading.Thread(target=run, args=(name,)) for name in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = sorted(name * 5 for name in "abcdefgh" for _ in range(200))
        self.assertEqual(sorted(self.lines), expected)

    def in_request(self, errors: Errors, function: Callable[[], object]) -> None:
        """Call a function as code of a request."""
        context = Context()
        context.run(current_errors.set, errors)
        context.run(function)

    def test_requests(self) -> None:
        """Lines have the id of their request; parts of lines are not mixed."""
        one, two = Errors("id-1"), Errors("id-2")
        self.in_request(one, lambda: self.stream.write("a"))
        self.in_request(two, lambda: self.stream.write("b"))
        self.stream.write("c")
        self.in_request(two, lambda: self.stream.buffer.write(b"2\n"))
        self.in_request(one, lambda: self.stream.write("1\n"))
        self.stream.write("3\n")
        self.assertEqual(self.lines, ["b2 (request id-2)", "a1 (request id-1)", "c3"])
        self.assertEqual(self.observer.events[0]["request_id"], "id-2")
        self.assertNotIn("request_id", self.observer.events[2])

    def test_end_of_a_request(self) -> None:
        """The end of a request logs its partial lines of all streams."""
        errors, other = Errors("id"), self.make(self.file)
        self.in_request(errors, lambda: self.stream.write("a"))
        self.in_request(errors, lambda: other.buffer.write(b"\xc3"))
        errors.write("c")
        errors.end()
        expected = ["\\xc3 (request id)", "a (request id)"]
        self.assertEqual(sorted(self.lines), sorted(expected))
        self.assertFalse(errors.partial_output)

    def test_output_after_a_request(self) -> None:
        """A task that outlives its request prints whole lines, and the rest at last."""
        errors = Errors("id")
        errors.end()
        self.in_request(errors, lambda: print("a", file=self.stream))
        self.in_request(errors, lambda: self.stream.write("rest"))
        self.assertEqual(self.lines, ["a (request id)"])
        del errors
        self.assertEqual(self.lines, ["a (request id)", "rest (request id)"])

    def test_end_of_the_log(self) -> None:
        """The unfinished lines of threads are logged before the log ends."""
        thread = threading.Thread(target=self.stream.write, args=("thread",))
        thread.start()
        thread.join()
        self.stream.buffer.write(b"main")
        end_partial_lines()
        end_partial_lines()
        self.assertEqual(sorted(self.lines), ["main", "thread"])


class ReplacementTests(SynchronousTestCase):
    """`replace_standard_streams`."""

    def test_redirected(self) -> None:
        """The streams of twistd are replaced once."""
        observer = Lines()
        for name, level in ("stdout", LogLevel.info), ("stderr", LogLevel.error):
            logger = Logger(name, observer=LogPublisher(observer))
            self.patch(sys, name, LoggingFile(logger, level))
        replace_standard_streams()
        streams = sys.stdout, sys.stderr
        replace_standard_streams()
        self.assertEqual((sys.stdout, sys.stderr), streams)
        print("out")
        print("err", file=sys.stderr)
        self.assertEqual(observer.found, ["out", "err"])
        levels = [event["log_level"] for event in observer.events]
        self.assertEqual(levels, [LogLevel.info, LogLevel.error])
        # `faulthandler` and others look for the descriptor.
        self.assertIsInstance(sys.stderr.fileno(), int)

    def test_other_streams(self) -> None:
        """Streams that twistd has not redirected stay."""

        class Subclass(LoggingFile):
            """A stream of another program."""

        for stream in (io.StringIO(), None, Subclass(Logger())):
            with patch.object(sys, "stdout", stream):
                replace_standard_streams()
                self.assertIs(sys.stdout, stream)

    def test_common_uses(self) -> None:
        """Common uses of the standard output work."""
        observer = Lines()
        logger = Logger("stdout", observer=LogPublisher(observer))
        self.patch(sys, "stdout", LoggingFile(logger))
        replace_standard_streams()
        sys.stdout.flush()
        with contextlib.redirect_stdout(io.StringIO()) as text:
            print("caught")
        self.assertEqual(text.getvalue(), "caught\n")
        os.close(os.dup(sys.stdout.fileno()))
        with open(sys.stdout.fileno(), "wb", closefd=False) as file:
            file.write(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            print("é", b"x", sep="\t")
        self.assertEqual(observer.found, ["é\tb'x'"])
