"""The import hook for drivers, and the detection of interruptions.

`tests/integration/test_databases.py` tests the drivers with real servers.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Cancelled, ClientDisconnected, TimedOut
from txgreenwsgi.green import drivers

from .clock import TaskClock

if TYPE_CHECKING:
    from collections.abc import Generator


class ImportTests(SynchronousTestCase):
    """Drivers are made green when they are imported, before or after the hook."""

    def setUp(self) -> None:
        """Write a driver and one whose import fails."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name, code in (
            ("greendriver", "state = ['imported']"),
            ("brokendriver", "raise LookupError('no library')"),
        ):
            with open(os.path.join(folder.name, f"{name}.py"), "w") as file:
                file.write(code)
            self.addCleanup(sys.modules.pop, name, None)
        self.patch(sys, "path", [folder.name, *sys.path])
        self.patch(sys, "meta_path", list(sys.meta_path))
        self.made: list[Any] = []
        importlib.invalidate_caches()

    def make_green(self, module: Any) -> None:
        """Record a driver and its state when it is made green."""
        self.made.append((module.__name__, list(module.state)))

    def watch_imports(self) -> None:
        """Install the hook for the two drivers."""
        drivers.watch_imports(
            {"greendriver": self.make_green, "brokendriver": self.made.append}
        )

    def test_imported_later(self) -> None:
        """A driver is made green after its own code has run; its loader is ordinary."""
        self.watch_imports()
        self.assertEqual(self.made, [])
        module = importlib.import_module("greendriver")
        self.assertEqual(self.made, [("greendriver", ["imported"])])
        assert module.__spec__ is not None
        self.assertEqual(type(module.__spec__.loader).__name__, "SourceFileLoader")
        self.assertIs(module.__loader__, module.__spec__.loader)

    def test_imported_before(self) -> None:
        """A driver that is imported already is made green at once."""
        importlib.import_module("greendriver")
        self.watch_imports()
        self.assertEqual(len(self.made), 1)

    def test_one_watch(self) -> None:
        """With two calls of `watch_imports`, each driver is made green once."""
        self.watch_imports()
        self.watch_imports()
        importlib.import_module("greendriver")
        self.assertEqual(len(self.made), 1)

    def test_find_spec_does_not_import(self) -> None:
        """`find_spec` does not make a driver green."""
        self.watch_imports()
        self.assertIsNotNone(importlib.util.find_spec("greendriver"))
        self.assertEqual(self.made, [])
        self.assertIsNone(importlib.util.find_spec("nodriver"))

    def test_broken(self) -> None:
        """A driver that cannot be imported raises its own exception."""
        self.watch_imports()
        with self.assertRaises(LookupError):
            importlib.import_module("brokendriver")
        self.assertEqual(self.made, [])
        self.assertNotIn("brokendriver", sys.modules)


class PsycopgTests(SynchronousTestCase):
    """The wait functions of psycopg."""

    def test_interval(self) -> None:
        """An interval that the original refuses raises the same in a task."""
        waiting = importlib.import_module("psycopg.waiting")
        drivers.make_psycopg_green()
        clock = TaskClock()

        def steps() -> Generator[int, int, str]:
            """End without a wait."""
            yield from ()
            return "result"

        for wait in (
            lambda interval: waiting.wait(steps(), 0, interval=interval),
            lambda interval: waiting.wait_conn(steps(), interval=interval),
        ):
            self.assertEqual(clock.result(wait, 0.1), "result")
            outside = self.assertRaises(ValueError, wait, None)
            inside = self.assertRaises(ValueError, clock.result, wait, None)
            self.assertEqual(str(inside), str(outside))


class InterruptionTests(SynchronousTestCase):
    """`interruption_of` finds the interruption behind a driver's own exception."""

    def test_wrapped(self) -> None:
        """It follows causes and contexts at any depth."""

        def wrap(interruption: Exception, from_it: bool) -> None:
            try:
                try:
                    raise interruption
                except Exception as error:
                    raise ConnectionError from (error if from_it else None)
            except OSError as error:
                raise LookupError("lost connection") from error

        for interruption in (Cancelled(), TimedOut(), ClientDisconnected()):
            for from_it in (True, False):
                error = self.assertRaises(LookupError, wrap, interruption, from_it)
                self.assertIs(drivers.interruption_of(error), interruption)

    def test_handled_before(self) -> None:
        """An exception handled around the call of a driver is not its cause."""
        try:
            raise TimedOut
        except TimedOut as handled:
            try:
                raise ConnectionResetError
            except OSError as error:
                self.assertIs(drivers.interruption_of(error), handled)
                self.assertIsNone(drivers.interruption_of(error, handled))

    def test_others(self) -> None:
        """A network error is not an interruption."""
        for error in (TimeoutError(), ConnectionResetError(), ValueError()):
            self.assertIsNone(drivers.interruption_of(error))
