"""The lines of the server log in each format."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, cast

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.monitoring.log_lines import LogLines

if TYPE_CHECKING:
    from twisted.logger import ILogObserver

NOON = time.mktime((2026, 11, 28, 12, 0, 1, 0, 0, -1))

TRACEBACK = """\
Traceback (most recent call last):
  File "shop.py", line 1, in view
    1 / 0
ZeroDivisionError: division by zero

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "shop.py", line 2, in view
    raise KeyError
KeyError
"""


class LogLinesTestCase(SynchronousTestCase):
    """Tests with a log whose lines are collected."""

    format = ""

    def setUp(self) -> None:
        """Make the log."""
        self.request_id: str | None = None
        self.lines = LogLines(self.format, lambda: self.request_id)
        self.written = ""

    def emit(self, namespace: str, level: LogLevel, text: str, **more: object) -> None:
        """Log one event."""

        def observe(event: dict[str, object]) -> None:
            event["log_time"] = NOON
            self.written += self.lines(event) or ""

        observer = cast("ILogObserver", observe)
        Logger(namespace, observer=observer).emit(level, text, **more)

    def print(self, text: str, stream: str = "stderr") -> None:
        """Log the lines of a text, as the standard streams do after single writes."""
        request_id = self.request_id
        level = LogLevel.error if stream == "stderr" else LogLevel.info
        more: dict[str, object] = {}
        form = "{log_io}"
        if request_id is not None:
            more = {"request_id": request_id}
            form = "{log_io} (request {request_id})"
        for line in text.splitlines():
            self.emit(stream, level, form, log_io=line, **more)

    def failure(self) -> Failure:
        """Return a failure."""
        try:
            raise ValueError("bad\nworse")
        except ValueError:
            return Failure()


class TextTests(LogLinesTestCase):
    """Twisted's own format."""

    format = "text"

    def test_request_id(self) -> None:
        """Lines that are logged in a request have its id, once."""
        self.emit("shop", LogLevel.info, "outside")
        self.request_id = "1f-2"
        self.emit("shop", LogLevel.info, "inside")
        self.emit("shop", LogLevel.info, "GET / (request {id}) failed", id="1f-2")
        self.print("printed", "stdout")
        stamp = self.written.partition(" ")[0]
        self.assertEqual(
            self.written,
            f"{stamp} [shop#info] outside\n"
            f"{stamp} [shop#info] inside (request 1f-2)\n"
            f"{stamp} [shop#info] GET / (request 1f-2) failed\n"
            f"{stamp} [stdout#info] printed (request 1f-2)\n",
        )

    def test_failure(self) -> None:
        """The id is in the first line of a failure."""
        self.request_id = "1f-2"
        self.emit("shop", LogLevel.critical, "oh", log_failure=self.failure())
        first, second = self.written.split("\n")[:2]
        self.assertTrue(first.endswith("[shop#critical] oh (request 1f-2)"), first)
        self.assertEqual(second, "\tTraceback (most recent call last):")

    def test_nothing(self) -> None:
        """An event without a text is not written."""
        self.assertIsNone(self.lines({}))


class DevelopmentTests(LogLinesTestCase):
    """The short form."""

    format = "dev"

    def test_prefix(self) -> None:
        """A line has time, level, namespace and the id of its request."""
        self.emit("shop", LogLevel.info, "outside")
        self.request_id = "1f-2"
        self.emit("shop", LogLevel.warn, "two\nlines")
        self.assertEqual(
            self.written,
            "12:00:01 info shop: outside\n"
            "12:00:01 warn shop: two (request 1f-2)\n"
            "    lines\n",
        )

    def test_failure(self) -> None:
        """The lines of a traceback are indented."""
        self.emit("shop", LogLevel.critical, "oh", log_failure=self.failure())
        lines = self.written.splitlines()
        self.assertEqual(lines[0], "12:00:01 critical shop: oh")
        self.assertEqual(lines[1], "    Traceback (most recent call last):")
        self.assertEqual(lines[-2:], ["    builtins.ValueError: bad", "    worse"])

    def test_failure_without_text(self) -> None:
        """A failure without a message begins with its traceback."""
        self.emit("shop", LogLevel.critical, "", log_failure=self.failure())
        self.assertTrue(
            self.written.startswith("12:00:01 critical shop: Traceback (most"),
            self.written,
        )

    def test_printed_traceback(self) -> None:
        """A traceback that arrives line by line has one prefix, with its causes."""
        self.request_id = "1f-2"
        self.print(TRACEBACK)
        self.print("next")
        lines = TRACEBACK.splitlines()
        self.assertEqual(
            self.written.splitlines(),
            [
                f"12:00:01 error stderr: {lines[0]} (request 1f-2)",
                *("    " + line for line in lines[1:]),
                "12:00:01 error stderr: next (request 1f-2)",
            ],
        )

    def test_two_tracebacks(self) -> None:
        """A second traceback that follows at once has a prefix of its own."""
        one = "Traceback (most recent call last):\n  File x\nKeyError\n"
        self.print(one)
        self.print("\nplain")
        self.print(one)
        self.assertEqual(self.written.count("error stderr: Traceback"), 2)
        self.assertIn("\n12:00:01 error stderr: plain\n", self.written)

    def test_exception_group(self) -> None:
        """The tracebacks of an exception group belong together."""
        self.print(
            "  + Exception Group Traceback (most recent call last):\n"
            "  |   File x\n"
            "  | ExceptionGroup: both (1 sub-exception)\n"
            "  +-+---------------- 1 ----------------\n"
            "    | ValueError: bad\n"
            "    +------------------------------------\n"
        )
        self.assertEqual(self.written.count("12:00:01"), 1, self.written)
        self.print("next")
        self.assertTrue(self.written.endswith("\n12:00:01 error stderr: next\n"))

    def test_several_lines_at_once(self) -> None:
        """Lines written at once have one prefix, such as those of `logging`."""
        self.emit("stderr", LogLevel.error, "{log_io}", log_io="ERROR:root:oh")
        more = {"log_io": "Traceback (most recent call last):", "continues": True}
        self.emit("stderr", LogLevel.error, "{log_io}", **more)
        self.print("  File x\nKeyError")
        self.assertEqual(
            self.written,
            "12:00:01 error stderr: ERROR:root:oh\n"
            "    Traceback (most recent call last):\n"
            "      File x\n"
            "    KeyError\n",
        )

    def test_interrupted_traceback(self) -> None:
        """After a line of another request, a traceback has its prefix again."""
        self.request_id = "1f-2"
        self.print("Traceback (most recent call last):\n  File x")
        self.request_id = "1f-3"
        self.print("other", "stdout")
        self.request_id = "1f-2"
        self.print("KeyError")
        self.assertEqual(
            self.written.splitlines()[2:],
            [
                "12:00:01 info stdout: other (request 1f-3)",
                "12:00:01 error stderr: KeyError (request 1f-2)",
            ],
        )

    def test_error_stream(self) -> None:
        """Lines of wsgi.errors have a short namespace."""
        self.request_id = "1f-2"
        form = "{line} (request {request_id})"
        for line in TRACEBACK.splitlines():
            self.emit(
                "txgreenwsgi._wsgi.errors",
                LogLevel.error,
                form,
                line=line,
                request_id="1f-2",
            )
        self.assertEqual(self.written.count("12:00:01"), 1)
        self.assertTrue(self.written.startswith("12:00:01 error wsgi.errors: Trace"))

    def test_routine(self) -> None:
        """Messages that the start line makes redundant are left out."""
        for namespace, text in [
            ("twisted.internet.base", "Main loop terminated."),
            ("twisted.scripts._twistd_unix.UnixAppLogger", "twistd 1 starting up."),
            ("log_legacy", "GreenSite starting on 8080"),
            ("log_legacy", "(TCP Port 8080 Closed)"),
        ]:
            self.emit(namespace, LogLevel.info, text)
        self.emit("a", LogLevel.info, "listening on {a}", a=1, is_routine=True)
        self.assertEqual(self.written, "")
        self.emit("twisted.internet.base", LogLevel.error, "failed")
        self.emit("shop", LogLevel.info, "worker starting on 7")
        self.emit("log_legacy", LogLevel.info, "legacy")
        self.assertEqual(
            self.written,
            "12:00:01 error twisted.internet.base: failed\n"
            "12:00:01 info shop: worker starting on 7\n"
            "12:00:01 info log: legacy\n",
        )

    def test_empty(self) -> None:
        """An event without a text is left out, an empty line is not."""
        self.assertIsNone(self.lines({}))
        self.emit("stdout", LogLevel.info, "{log_io}", log_io="")
        self.assertEqual(self.written, "12:00:01 info stdout: \n")


class JsonTests(LogLinesTestCase):
    """One JSON object per line."""

    format = "json"

    def test_fields(self) -> None:
        """An object has time, level, namespace, message and the id of its request."""
        self.request_id = "1f-2"
        self.emit("shop", LogLevel.warn, "a\nb {n}", n=1)
        self.print("printed", "stdout")
        self.request_id = None
        self.emit("shop", LogLevel.info, "outside")
        first, second, third = map(json.loads, self.written.splitlines())
        self.assertRegex(first.pop("time"), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:01\.000Z\Z")
        self.assertEqual(
            first,
            {
                "level": "warn",
                "namespace": "shop",
                "message": "a\nb 1",
                "request_id": "1f-2",
            },
        )
        self.assertEqual(second["message"], "printed")
        self.assertEqual(second["request_id"], "1f-2")
        self.assertNotIn("request_id", third)

    def test_failure(self) -> None:
        """The traceback of a failure is a field of its own."""
        self.emit("shop", LogLevel.critical, "oh", log_failure=self.failure())
        entry = json.loads(self.written)
        self.assertEqual(entry["message"], "oh")
        self.assertTrue(entry["traceback"].startswith("Traceback (most recent"))
        self.assertTrue(entry["traceback"].endswith("ValueError: bad\nworse"))

    def test_nothing(self) -> None:
        """An event without a text is not written; one without a time has none."""
        self.assertIsNone(self.lines({}))
        line = self.lines({"log_format": "x"})
        assert line is not None
        self.assertIsNone(json.loads(line)["time"])
