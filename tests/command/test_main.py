"""The choice between serving and a subcommand."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import _command
from txgreenwsgi._command import SUBCOMMANDS, main


class MainTests(SynchronousTestCase):
    """`main` with modules that record their arguments."""

    def setUp(self) -> None:
        """Replace the modules of all subcommands."""
        self.calls: list[tuple[str, list[str]]] = []

        def import_module(name: str) -> ModuleType:
            module = ModuleType(name)

            def run(words: list[str]) -> int:
                self.calls.append((name.rpartition(".")[2], words))
                return 5

            module.main = run  # type: ignore[attr-defined]
            return module

        self.patch(_command, "import_module", import_module)

    def test_subcommands(self) -> None:
        """The first word selects a subcommand, which gets the others."""
        for name, module in [
            ("status", "status"),
            ("reload", "reload"),
            ("scale", "scale"),
            ("stacks", "stacks"),
            ("from-gunicorn", "from_gunicorn"),
        ]:
            self.calls.clear()
            self.assertEqual(main([name, "a", "-b"]), 5)
            self.assertEqual(self.calls, [(module, ["a", "-b"])])

    def test_serve(self) -> None:
        """Everything else serves an application."""
        for words in ([], ["shop:app"], ["--app", "status"], ["status:app"]):
            self.calls.clear()
            self.assertEqual(main(words), 5)
            self.assertEqual(self.calls, [("serve", words)])

    def test_arguments_of_the_process(self) -> None:
        """By default, the words are those of the process."""
        self.patch(sys, "argv", ["txgreenwsgi", "status", "--json"])
        main()
        self.assertEqual(self.calls, [("status", ["--json"])])

    def test_modules(self) -> None:
        """Each subcommand has a module."""
        for name in SUBCOMMANDS:
            self.assertIsNotNone(find_spec(SUBCOMMANDS[name].module), name)

    def test_script(self) -> None:
        """The package installs the command."""
        (script,) = entry_points(group="console_scripts", name="txgreenwsgi")
        self.assertIs(script.load(), main)

    def test_lazy(self) -> None:
        """Subcommands import neither twistd nor a reactor."""
        program = (
            "import sys; import txgreenwsgi._command.status; "
            "print([n for n in ('twisted.scripts.twistd', "
            "'twisted.internet.reactor') if n in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout, "[]\n")
