"""`wsgi.errors`: lines in the log, with the request they belong to."""

from __future__ import annotations

import logging
from typing import Any
from unittest import mock

from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._wsgi import errors
from txgreenwsgi._wsgi.errors import Errors


class ErrorsTests(SynchronousTestCase):
    """What an application writes (PEP 3333, "Input and Error Streams")."""

    def setUp(self) -> None:
        """Have an error stream, and see what it logs."""
        self.lines: list[str] = []
        observer = mock.Mock(side_effect=self.note)
        self.patch(errors._log, "observer", observer)
        self.errors = Errors("id-1")

    def note(self, event: dict[str, Any]) -> None:
        """Keep a line."""
        self.assertEqual(event["log_level"], LogLevel.error)
        self.lines.append(formatEvent(event))

    def test_lines(self) -> None:
        """Each line is an event of its own; empty ones too."""
        self.assertEqual(self.errors.write("one\n\ntwo\n"), 9)
        self.assertEqual(
            self.lines,
            ["one (request id-1)", " (request id-1)", "two (request id-1)"],
        )

    def test_parts_of_a_line(self) -> None:
        """A line may come in parts; it is logged when its end has come."""
        self.errors.writelines(["o", "n", "e"])
        self.assertEqual(self.lines, [])
        self.errors.write("\nt")
        self.assertEqual(self.lines, ["one (request id-1)"])

    def test_flush(self) -> None:
        """flush() logs what has no end yet; a second one nothing."""
        self.errors.write("one")
        self.errors.flush()
        self.errors.flush()
        self.assertEqual(self.lines, ["one (request id-1)"])

    def test_close(self) -> None:
        """Applications must not close it; one that does loses nothing."""
        self.errors.write("one")
        self.errors.close()
        self.errors.write("two\n")
        self.assertEqual(len(self.lines), 2)

    def test_line_without_an_end(self) -> None:
        """A line that never ends is logged in parts, and not held for ever."""
        for _ in range(100):
            self.errors.write("x" * 1000)
        self.assertGreater(len(self.lines), 4)
        self.errors.flush()
        self.assertEqual(sum(line.count("x") for line in self.lines), 100_000)

    def test_format_characters(self) -> None:
        """What looks like a format is none."""
        self.errors.write("{request_id} %s {\n")
        self.assertEqual(self.lines, ["{request_id} %s { (request id-1)"])

    def test_what_is_no_text(self) -> None:
        """It never raises: it is called from `except` blocks."""
        wrong: Any = b"bytes\n"
        self.errors.write(wrong)
        self.errors.write(None)  # type: ignore[arg-type]
        self.errors.flush()
        self.assertEqual(len(self.lines), 1)

    def test_logging(self) -> None:
        """It works as the stream of a logging handler, as Flask uses it."""
        handler = logging.StreamHandler(self.errors)
        handler.emit(logging.makeLogRecord({"msg": "told", "levelno": logging.ERROR}))
        self.assertEqual(self.lines, ["told (request id-1)"])

    def test_print(self) -> None:
        """print() can write to it."""
        print("one", 2, file=self.errors)
        self.assertEqual(self.lines, ["one 2 (request id-1)"])
