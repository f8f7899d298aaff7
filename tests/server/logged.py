"""What a test's servers have logged, as lines a reader of the log would see.

It knows Twisted's log. It must never know what is logged.
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
        test: the one that is running.
    """

    def __init__(self, test: SynchronousTestCase) -> None:
        self._events: list[LogEvent] = []
        self._test = test
        globalLogPublisher.addObserver(self)
        test.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        """Part of ILogObserver."""
        self._events.append(event)

    def lines(self) -> list[str]:
        """Every line since the last call, from whatever part of the program."""
        events, self._events = self._events, []
        return [formatEvent(event) for event in events]

    def errors(self) -> list[str]:
        """The lines since the last call that tell of something gone wrong.

        Those that come with a traceback are taken from trial, which would fail
        the test for them. A worker of `trial -j` cannot log a line of more than
        64 KiB, and says so: its trouble, not ours.
        """
        events, self._events = self._events, []
        self._test.flushLoggedErrors()
        return [
            formatEvent(event)
            for event in events
            if event["log_level"] in (LogLevel.error, LogLevel.critical)
            and "WorkerLogObserver" not in str(event.get("observer"))
        ]
