"""`--patch`, `--offload` and `--check`."""

from __future__ import annotations

import sys
import types

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.check import BLOCKS, GREEN, Finding, examine, report
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._twistd.patching import (
    PATCHABLE,
    NotFound,
    offload_names,
    parse_patch,
)


class PatchOptionTests(SynchronousTestCase):
    """What the command line may say."""

    def parsed(self, *words: str) -> Options:
        """The options that `words` give."""
        options = Options()
        options.parseOptions(list(words))
        return options

    def test_patch(self) -> None:
        """All is the default; none, or a list, may be asked for."""
        self.assertEqual(self.parsed()["patch"], PATCHABLE)
        self.assertEqual(self.parsed("--patch", "none")["patch"], ())
        self.assertEqual(
            self.parsed("--patch", "socket,ssl")["patch"], ("socket", "ssl")
        )
        with self.assertRaises(usage.UsageError) as caught:
            self.parsed("--patch", "sockets")
        self.assertIn("--patch 'sockets'", str(caught.exception))

    def test_everything_that_can_be_patched(self) -> None:
        """The command knows every module that the library can patch."""
        from txgreenwsgi.monkey import MODULES

        self.assertEqual(PATCHABLE, tuple(MODULES))
        self.assertEqual(parse_patch("all"), PATCHABLE)

    def test_offload(self) -> None:
        """It may be repeated, and what is no name is refused with an example."""
        options = self.parsed("--offload", "a.b", "--offload", "c.d.e")
        self.assertEqual(options["offload"], ["a.b", "c.d.e"])
        for wrong in ("function", "a.b()", ""):
            with self.assertRaises(usage.UsageError) as caught:
                self.parsed("--offload", wrong)
            self.assertIn("sqlite3.connect", str(caught.exception))


class OffloadNamesTests(SynchronousTestCase):
    """Functions and methods are replaced where they are found."""

    def setUp(self) -> None:
        """A module with both."""

        class Class:
            def method(self) -> str:
                return "method"

            @staticmethod
            def static() -> str:
                return "static"

        self.module = types.ModuleType("green_offload_example")
        self.module.__dict__.update(function=lambda: "function", Class=Class)
        self.patch_modules()

    def patch_modules(self) -> None:
        """Make the module importable for a test."""
        sys.modules[self.module.__name__] = self.module
        self.addCleanup(sys.modules.pop, self.module.__name__)

    def test_found(self) -> None:
        """What was named goes on working, outside tasks too."""
        before = self.module.function
        for name in ("function", "Class.method", "Class.static"):
            offload_names([f"green_offload_example.{name}"])
        self.assertIsNot(self.module.function, before)
        self.assertEqual(self.module.function(), "function")
        self.assertEqual(self.module.Class().method(), "method")
        self.assertEqual(self.module.Class.static(), "static")

    def test_not_found(self) -> None:
        """A name that is not there is told with the option."""
        for name in ("green_offload_example.nothing", "no_such_package.function"):
            with self.assertRaises(NotFound) as caught:
                offload_names([name])
            self.assertIn(f"--offload '{name}'", str(caught.exception))


class CheckTests(SynchronousTestCase):
    """What `--check` says of what is loaded."""

    def load(self, name: str) -> None:
        """Pretend that a driver is loaded."""
        self.patch(sys, "modules", {**sys.modules, name: types.ModuleType(name)})

    def test_a_driver_in_c(self) -> None:
        """It blocks, unless its calls are off-loaded."""
        self.load("MySQLdb")
        found = {finding.name: finding for finding in examine()}["MySQLdb"]
        self.assertEqual(found.verdict, BLOCKS)
        self.assertIn("PyMySQL", found.remedy)
        found = {f.name: f for f in examine(["MySQLdb.connect"])}["MySQLdb"]
        self.assertNotEqual(found.verdict, BLOCKS)

    def test_a_driver_on_unpatched_sockets(self) -> None:
        """A driver in Python blocks as long as sockets are not patched."""
        self.load("pymysql")
        found = {finding.name: finding for finding in examine()}["pymysql"]
        self.assertEqual(found.verdict, BLOCKS)
        self.assertIn("--patch", found.remedy)

    def test_exit_status(self) -> None:
        """1 if something blocks, 0 otherwise; every remedy is shown."""
        text, status = report([Finding("x", BLOCKS, "do y"), Finding("z", GREEN)])
        self.assertEqual(status, 1)
        self.assertIn("do y", text)
        self.assertIn("1 of 2", text)
        self.assertEqual(report([Finding("z", GREEN)])[1], 0)
        self.assertEqual(report([])[1], 0)
