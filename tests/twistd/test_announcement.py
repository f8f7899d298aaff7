"""The line of the log that tells what was started."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

import txgreenwsgi
from txgreenwsgi import _native
from txgreenwsgi._twistd.announcement import announce, threads_mode
from txgreenwsgi.settings import Settings

if TYPE_CHECKING:
    from twisted.logger import ILogObserver


class AnnouncementTests(SynchronousTestCase):
    """`announce`."""

    def announced(self, *urls: str, workers: tuple[int, ...] = ()) -> str:
        """Return the message."""
        events: list[LogEvent] = []
        observer = cast("ILogObserver", events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        announce("shop:app", urls, Settings(threads_for=("auto",)), workers)
        (event,) = events
        return formatEvent(event)

    def test_one_process(self) -> None:
        """The line has version, application, URLs, process id and modes."""
        self.assertEqual(
            self.announced("http://127.0.0.1:8080/", "unix:/run/a.sock"),
            f"txgreenwsgi {txgreenwsgi.__version__} serves shop:app at "
            f"http://127.0.0.1:8080/ unix:/run/a.sock (pid {os.getpid()}; blocking "
            f"paths in threads, at most 8; {_native.description()})",
        )

    def test_workers(self) -> None:
        """With workers, the line has their process ids and that of the master."""
        self.assertIn(
            f"(2 workers, pids 7 8, master {os.getpid()};",
            self.announced("http://127.0.0.1:8080/", workers=(7, 8)),
        )
        self.assertIn("(1 worker, pid 7,", self.announced("x", workers=(7,)))

    def test_no_port_yet(self) -> None:
        """A server whose endpoints are not open yet has no address."""
        self.assertIn(" at no address (", self.announced())

    def test_threads(self) -> None:
        """The line tells which requests run in threads."""
        for patterns, text in [
            ((), "no requests in threads"),
            (("none",), "no requests in threads"),
            (("all",), "requests in threads, at most 8"),
            (("/a/*", "POST /b"), "threads for /a/*, POST /b, at most 8"),
        ]:
            settings = Settings(threads_for=patterns)
            self.assertEqual(threads_mode(settings), text)
