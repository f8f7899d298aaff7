"""The log of the workers."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, cast

from twisted.logger import Logger, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._workers.logs import MAX_UNSENT_BYTES, LogReader, LogSender
from txgreenwsgi.monitoring.log_levels import LogLevels
from txgreenwsgi.monitoring.log_lines import LogLines

from .memory_fds import FakeReactor

if TYPE_CHECKING:
    from twisted.logger import ILogObserver


class LogTests(SynchronousTestCase):
    """A sender and a reader."""

    def setUp(self) -> None:
        """Connect them, and record the events of the master."""
        theirs, ours = socket.socketpair()
        self.reactor = FakeReactor()
        self.sender = LogSender(theirs, "worker 1")
        self.addCleanup(theirs.close)
        self.reader = LogReader(ours, cast("Any", self.reactor), "worker 1 (pid 7)")
        self.addCleanup(self.reader.close)
        self.logger = Logger(namespace="shop.views", observer=self.sender)
        self.events: list[dict[str, Any]] = []
        observer = cast("ILogObserver", self.record)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def record(self, event: dict[str, Any]) -> None:
        """Record an event of a worker."""
        if "worker_text" in event:
            self.events.append(event)

    def texts(self) -> list[str]:
        """Return the texts of the recorded events."""
        return [str(formatEvent(event)) for event in self.events]

    def test_event(self) -> None:
        """Level, time, namespace and text arrive, with the name of the worker."""
        self.logger.warn("{count} items", count=3)
        self.reader.doRead()
        [event] = self.events
        self.assertEqual(formatEvent(event), "3 items")
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(event["log_namespace"], "shop.views")
        self.assertEqual(event["log_system"], "worker 1 (pid 7) shop.views#warn")

    def test_levels(self) -> None:
        """The levels of the worker decide, whatever those of the master are."""
        master = LogLines("text", lambda: None, levels=LogLevels(["critical"]))
        self.logger.error("before the options are known")
        self.sender.set_levels(["warn", "shop.views=debug", "shop=error"])
        for namespace in ("shop.views", "shop.models", "other"):
            logger = Logger(namespace=namespace, observer=self.sender)
            logger.debug("debug")
            logger.warn("warn")
            logger.error("error")
        self.reader.doRead()
        found = [
            (event["log_namespace"], str(formatEvent(event)))
            for event in self.events
            if master(event) is not None
        ]
        self.assertEqual(
            found,
            [
                ("shop.views", "debug"),
                ("shop.views", "warn"),
                ("shop.views", "error"),
                ("shop.models", "error"),
                ("other", "warn"),
                ("other", "error"),
            ],
        )
        self.assertEqual(len(self.events), 7)

    def test_failure(self) -> None:
        """A traceback is part of the text."""
        try:
            raise ZeroDivisionError("none")
        except ZeroDivisionError:
            self.logger.failure("it failed", failure=Failure())
        self.reader.doRead()
        [text] = self.texts()
        self.assertIn("it failed", text)
        self.assertIn("ZeroDivisionError: none", text)

    def test_any_text(self) -> None:
        """Newlines, braces and characters outside of ASCII are kept."""
        self.logger.info("{text}", text="a\n{b} \N{SNOWMAN}")
        self.reader.doRead()
        self.assertEqual(self.texts(), ["a\n{b} \N{SNOWMAN}"])

    def test_master_that_does_not_read(self) -> None:
        """Lines beyond a limit are discarded and counted; the worker never waits."""
        text = "x" * 10_000
        for number in range(1000):
            self.logger.info("{number} {text}", number=number, text=text)
        for _ in range(1000):
            self.reader.doRead()
            self.sender.flush()
        texts = self.texts()
        self.assertLess(len(texts), 1000)
        self.assertGreater(len(texts), MAX_UNSENT_BYTES // 11_000)
        self.assertIn(f"{1001 - len(texts)} log lines were lost", texts[-1])
        self.logger.info("again")
        self.reader.doRead()
        self.assertEqual(self.texts()[-1], "again")

    def test_long_line(self) -> None:
        """A line that is too long is truncated."""
        # Two bytes each: trial sends what is logged to its main process, which accepts
        # 64 KiB at a time.
        text = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 1_000_000
        self.logger.info("{text}", text=text)
        for _ in range(100):
            self.sender.flush()
            self.reader.doRead()
        [text] = self.texts()
        self.assertTrue(text.endswith(" [truncated]"))

    def test_master_that_has_ended(self) -> None:
        """Lines then go to standard error."""
        self.reader.close()
        reading, writing = os.pipe()
        saved = os.dup(2)
        os.dup2(writing, 2)
        try:
            self.logger.info("alone")
            self.logger.info("still")
        finally:
            os.dup2(saved, 2)
            for fd in (saved, writing):
                os.close(fd)
        text = os.read(reading, 1000).decode()
        os.close(reading)
        self.assertIn("[worker 1 shop.views#info] alone\n", text)
        self.assertIn("[worker 1 shop.views#info] still\n", text)

    def test_master_that_has_ended_and_full_pipe(self) -> None:
        """A worker does not wait until standard error is read."""
        self.reader.close()
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        size = 0
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                size += os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        saved = os.dup(2)
        os.dup2(writing, 2)
        try:
            self.logger.info("alone")
            os.read(reading, size)
            self.logger.info("{text}", text="y" * 10_000)
        finally:
            os.dup2(saved, 2)
            for fd in (saved, writing):
                os.close(fd)
        text = os.read(reading, 1 << 20).decode()
        self.assertNotIn("alone", text)
        self.assertTrue(text.endswith("y" * 10_000 + "\n"), text[-20:])

    def test_finish(self) -> None:
        """The last lines of a worker that has ended are logged."""
        self.logger.info("last words")
        self.sender.finish()
        self.reader.finish()
        self.assertEqual(self.texts(), ["last words"])
        self.assertNotIn(self.reader, self.reactor.readers)

    def test_end_of_the_reactor(self) -> None:
        """The reactor's end closes the reader after its last lines."""
        self.logger.info("late")
        self.reader.connectionLost(Failure(Exception()))
        self.assertEqual(self.texts(), ["late"])
