"""When drivers are made green, and what counts as an interruption.

What they do with a real server is in `tests/integration/test_databases.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import Cancelled, ClientDisconnected, TimedOut
from txgreenwsgi.green import drivers


class ImportTests(SynchronousTestCase):
    """A driver is made green when it is imported, whoever does that and when."""

    def setUp(self) -> None:
        """A driver that nobody has imported, and one that fails."""
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
        self.patch(
            drivers,
            "_MAKE_GREEN",
            {"greendriver": self.make_green, "brokendriver": self.made.append},
        )
        importlib.invalidate_caches()

    def make_green(self, module: Any) -> None:
        """Write down what is made green, and in which state."""
        self.made.append((module.__name__, list(module.state)))

    def test_imported_later(self) -> None:
        """It is made green when its own code has run, and is a module like others."""
        drivers.watch_imports()
        self.assertEqual(self.made, [])
        module = importlib.import_module("greendriver")
        self.assertEqual(self.made, [("greendriver", ["imported"])])
        assert module.__spec__ is not None
        self.assertEqual(type(module.__spec__.loader).__name__, "SourceFileLoader")
        self.assertIs(module.__loader__, module.__spec__.loader)

    def test_imported_before(self) -> None:
        """One that is there already is made green at once, and again does no harm."""
        importlib.import_module("greendriver")
        drivers.watch_imports()
        self.assertEqual(len(self.made), 1)

    def test_one_watch(self) -> None:
        """Asking twice has each made green once."""
        drivers.watch_imports()
        drivers.watch_imports()
        importlib.import_module("greendriver")
        self.assertEqual(len(self.made), 1)

    def test_looking_is_not_importing(self) -> None:
        """Somebody who only asks whether a driver is there changes nothing."""
        drivers.watch_imports()
        self.assertIsNotNone(importlib.util.find_spec("greendriver"))
        self.assertEqual(self.made, [])
        self.assertIsNone(importlib.util.find_spec("nodriver"))

    def test_broken(self) -> None:
        """A driver that cannot be imported fails as it would without us."""
        drivers.watch_imports()
        with self.assertRaises(LookupError):
            importlib.import_module("brokendriver")
        self.assertEqual(self.made, [])
        self.assertNotIn("brokendriver", sys.modules)


class InterruptionTests(SynchronousTestCase):
    """`interruption_of` finds what cut a wait short behind a driver's own error."""

    def test_wrapped(self) -> None:
        """However deep it is, whether it was the cause or only the context."""

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
        """What was being handled when a driver was called is none of its errors."""
        try:
            raise TimedOut
        except TimedOut as handled:
            try:
                raise ConnectionResetError
            except OSError as error:
                self.assertIs(drivers.interruption_of(error), handled)
                self.assertIsNone(drivers.interruption_of(error, handled))

    def test_others(self) -> None:
        """A network that failed by itself is no interruption."""
        for error in (TimeoutError(), ConnectionResetError(), ValueError()):
            self.assertIsNone(drivers.interruption_of(error))
