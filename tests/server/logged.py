"""The log lines of a test's servers, as in a log file.

This file knows Twisted's log. It must never know which lines are right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.logger import LogEvent
    from twisted.trial.unittest import SynchronousTestCase

__all__ = ["Logged"]


@implementer(ILogObserver)
class Logged:
    """Collects log events until the test ends.

    Args:
        test: the running test.
    """

    def __init__(self, test: SynchronousTestCase) -> None:
        self._events: list[LogEvent] = []
        self._test = test
        globalLogPublisher.addObserver(self)
        test.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        """Collect an event: part of ILogObserver."""
        self._events.append(event)

    def lines(self) -> list[str]:
        """Return all lines since the last call, of all parts of the program."""
        events, self._events = self._events, []
        return [formatEvent(event) for event in events]

    def errors(self) -> list[str]:
        """Return the lines since the last call that report an error.

        Tracebacks are taken from trial, which would fail the test for them. Lines of a
        `trial -j` worker about log lines beyond its 64 KiB are ignored: they are not of
        the code under test.
        """
        events, self._events = self._events, []
        self._test.flushLoggedErrors()
        return [
            formatEvent(event)
            for event in events
            if event["log_level"] in (LogLevel.error, LogLevel.critical)
            and "WorkerLogObserver" not in str(event.get("observer"))
        ]
