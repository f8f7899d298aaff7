"""The format of twistd's and twist's logs."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Application, MultiService
from twisted.application.twist._options import TwistOptions
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogLevel,
    globalLogPublisher,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.log_observer import LogFormat, current_request
from txgreenwsgi._wsgi.errors import Errors, current_errors

EVENT = {
    "log_time": 0,
    "log_level": LogLevel.info,
    "log_namespace": "shop",
    "log_format": "hello",
}


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def options(*words: str) -> Any:
    """Return twistd's options for a command line."""
    parsed: Any = ServerOptions()
    parsed["nodaemon"] = "-n" in words
    parsed["logfile"] = next((word for word in words if word != "-n"), None)
    return parsed


class TwistdTests(SynchronousTestCase):
    """The observer that twistd finds in its application."""

    def setUp(self) -> None:
        """Restore standard output."""
        self.output = io.StringIO()
        self.patch(sys, "stdout", self.output)

    def line(self, name: str, parent: Any) -> str | None:
        """Return the line of an event; None if twistd makes the observer."""
        application = Application("web")
        LogFormat(name, parent).enter_application(application)
        observer = application.getComponent(ILogObserver, None)
        if observer is None:
            return None
        observer(EVENT)
        return self.output.getvalue()

    def test_automatic(self) -> None:
        """By default, the short form is for a terminal in the foreground."""
        self.assertIn("[shop#info] hello\n", self.line("auto", options("-n")) or "")
        self.output = Terminal()
        self.patch(sys, "stdout", self.output)
        written = self.line("auto", options("-n")) or ""
        self.assertTrue(written.endswith(" info shop: hello\n"), written)

    def test_chosen(self) -> None:
        """A format that is chosen is used without a terminal."""
        written = self.line("json", options("-n")) or ""
        self.assertIn('"message": "hello"', written)
        self.assertIn(" info shop: hello\n", self.line("dev", options("-n")) or "")

    def test_file(self) -> None:
        """The log file of twistd is formatted too; it is no terminal."""
        self.patch(sys, "stdout", Terminal())
        path = self.mktemp()
        self.assertIsNotNone(self.line("auto", options("-n", path)))
        self.assertIn("[shop#info] hello\n", Path(path).read_text())

    def test_left_to_twistd(self) -> None:
        """Twistd makes the observers of --logger and --syslog."""
        for name in ("logger", "syslog"):
            parent = options("-n")
            parent[name] = True
            self.assertIsNone(self.line("dev", parent))
        self.assertIsNone(self.line("dev", None))

    def test_other_parents(self) -> None:
        """In another service there is nothing to choose."""
        LogFormat("dev", options("-n")).enter_application(MultiService())

    def test_request(self) -> None:
        """A line in a request has its id."""
        token = current_errors.set(Errors("1f-2"))
        self.addCleanup(current_errors.reset, token)
        self.assertEqual(current_request(), "1f-2")
        written = self.line("text", options("-n")) or ""
        self.assertTrue(written.endswith("hello (request 1f-2)\n"), written)


class TwistTests(SynchronousTestCase):
    """The observers that twist has added to the log."""

    def formatted(self, name: str, observer: FileLogObserver) -> str | None:
        """Return the text of an event after the service has started."""
        chosen = LogFormat(name, cast("Any", TwistOptions()))
        self.assertTrue(chosen.is_late)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        chosen.enter_log()
        return observer.formatEvent(EVENT)

    def test_text(self) -> None:
        """The text format of twist gets the id of the request."""
        token = current_errors.set(Errors("1f-2"))
        self.addCleanup(current_errors.reset, token)
        line = self.formatted("auto", textFileLogObserver(io.StringIO())) or ""
        self.assertTrue(line.endswith("[shop#info] hello (request 1f-2)\n"), line)

    def test_json(self) -> None:
        """Twist's own JSON stays unless a format is chosen."""
        observer = jsonFileLogObserver(io.StringIO())
        self.assertIn("log_format", self.formatted("auto", observer) or "")
        self.assertIn(" info shop: hello", self.formatted("dev", observer) or "")

    def test_not_late(self) -> None:
        """In twistd, the log begins before the service starts."""
        self.assertFalse(LogFormat("dev", options("-n")).is_late)
        self.assertFalse(LogFormat("dev", None).is_late)
