"""The options `--patch` and `--offload`."""

from __future__ import annotations

import sys
import types

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._launch.patching import PATCHABLE, parse_patch
from txgreenwsgi._twistd.offloading import FunctionNotFound, offload_names
from txgreenwsgi._twistd.options import Options


class PatchOptionTests(SynchronousTestCase):
    """The accepted values."""

    def parsed(self, *words: str) -> Options:
        """Return the options for a command line."""
        options = Options()
        options.parseOptions(list(words))
        return options

    def test_patch(self) -> None:
        """The default is all; none, or a list, may be given."""
        self.assertEqual(self.parsed()["patch"], PATCHABLE)
        self.assertEqual(self.parsed("--patch", "none")["patch"], ())
        self.assertEqual(
            self.parsed("--patch", "socket,ssl")["patch"], ("socket", "ssl")
        )
        with self.assertRaises(usage.UsageError) as caught:
            self.parsed("--patch", "sockets")
        self.assertIn("--patch 'sockets'", str(caught.exception))

    def test_everything_that_can_be_patched(self) -> None:
        """The command accepts every module that `txgreenwsgi.monkey` patches."""
        from txgreenwsgi.monkey import MODULES

        self.assertEqual(PATCHABLE, tuple(MODULES))
        self.assertEqual(parse_patch("all"), PATCHABLE)
        self.assertEqual(parse_patch(["time", "ssl"]), ("time", "ssl"))

    def test_offload(self) -> None:
        """It may be repeated; anything but a full name is refused with an example."""
        options = self.parsed("--offload", "a.b", "--offload", "c.d.e")
        self.assertEqual(options["offload"], ("a.b", "c.d.e"))
        for wrong in ("function", "a.b()", "", "Heavy"):
            with self.assertRaises(usage.UsageError) as caught:
                self.parsed("--offload", wrong)
            self.assertIn("bcrypt.hashpw, or heavy", str(caught.exception))

    def test_offload_heavy(self) -> None:
        """The name heavy patches well-known modules; other names may be added."""
        options = self.parsed("--offload", "heavy", "--offload", "os.getcwd")
        self.assertEqual(options["offload"], ("heavy", "os.getcwd"))
        from txgreenwsgi import monkey

        calls: list[str] = []
        self.patch(monkey, "patch_heavy", lambda: calls.append("patched"))
        offload_names(["heavy"])
        self.assertEqual(calls, ["patched"])


class OffloadNamesTests(SynchronousTestCase):
    """Replacement of functions and methods."""

    def setUp(self) -> None:
        """Create a module with both."""

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
        """Make the module importable during a test."""
        sys.modules[self.module.__name__] = self.module
        self.addCleanup(sys.modules.pop, self.module.__name__)

    def test_found(self) -> None:
        """Replaced functions return the same results, outside tasks too."""
        before = self.module.function
        for name in ("function", "Class.method", "Class.static"):
            offload_names([f"green_offload_example.{name}"])
        self.assertIsNot(self.module.function, before)
        self.assertEqual(self.module.function(), "function")
        self.assertEqual(self.module.Class().method(), "method")
        self.assertEqual(self.module.Class.static(), "static")

    def test_not_found(self) -> None:
        """For an unknown function, the message gives the option and its value."""
        for name in ("green_offload_example.nothing", "no_such_package.function"):
            with self.assertRaises(FunctionNotFound) as caught:
                offload_names([name])
            self.assertIn(f"--offload '{name}'", str(caught.exception))
