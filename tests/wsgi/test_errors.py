"""Tests of `wsgi.errors`: log lines with the id of their request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txgreenwsgi._wsgi.errors import Errors

if TYPE_CHECKING:
    from twisted.logger import LogEvent


@implementer(ILogObserver)
class Lines:
    """An observer that collects the lines logged by `wsgi.errors`."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        """Keep the line if it comes from `wsgi.errors`."""
        if event["log_namespace"] == Errors.__module__:
            assert event["log_level"] is LogLevel.error
            self.found.append(formatEvent(event))


class ErrorsTests(SynchronousTestCase):
    """`Errors` (PEP 3333, "Input and Error Streams")."""

    def setUp(self) -> None:
        """Create an error stream and collect its log lines."""
        observer = Lines()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.lines = observer.found
        self.errors = Errors("id-1")

    def test_lines(self) -> None:
        """Each line is logged as one event, including empty lines."""
        self.assertEqual(self.errors.write("one\n\ntwo\n"), 9)
        self.assertEqual(
            self.lines,
            ["one (request id-1)", " (request id-1)", "two (request id-1)"],
        )

    def test_parts_of_a_line(self) -> None:
        """A line written in parts is logged once its newline has been written."""
        self.errors.writelines(["o", "n", "e"])
        self.assertEqual(self.lines, [])
        self.errors.write("\nt")
        self.assertEqual(self.lines, ["one (request id-1)"])

    def test_flush(self) -> None:
        """flush() logs a partial line; a second flush() logs nothing."""
        self.errors.write("one")
        self.errors.flush()
        self.errors.flush()
        self.assertEqual(self.lines, ["one (request id-1)"])

    def test_close(self) -> None:
        """close() loses nothing: the partial line is logged, and writes still work."""
        self.errors.write("one")
        self.errors.close()
        self.errors.write("two\n")
        self.assertEqual(len(self.lines), 2)

    def test_endless_line(self) -> None:
        """A line without a newline is logged in parts, so that memory is bounded."""
        for _ in range(100):
            self.errors.write("x" * 1000)
        self.assertGreater(len(self.lines), 4)
        self.errors.flush()
        self.assertEqual(sum(line.count("x") for line in self.lines), 100_000)

    def test_format_characters(self) -> None:
        """Format characters in the text are logged literally."""
        self.errors.write("{request_id} %s {\n")
        self.assertEqual(self.lines, ["{request_id} %s { (request id-1)"])

    def test_wrong_types(self) -> None:
        """write() never raises, not even for bytes or None."""
        wrong: Any = b"bytes\n"
        self.errors.write(wrong)
        self.errors.write(None)  # type: ignore[arg-type]
        self.errors.flush()
        self.assertEqual(len(self.lines), 1)

    def test_logging(self) -> None:
        """It works as the stream of a logging handler, as used by Flask."""
        handler = logging.StreamHandler(self.errors)
        handler.emit(logging.makeLogRecord({"msg": "logged", "levelno": logging.ERROR}))
        self.assertEqual(self.lines, ["logged (request id-1)"])

    def test_print(self) -> None:
        """print() works with it as `file`."""
        print("one", 2, file=self.errors)
        self.assertEqual(self.lines, ["one 2 (request id-1)"])
