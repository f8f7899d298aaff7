"""The applications that can be run, and the page about them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.applications.table import APPLICATIONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "applications.md"


class ApplicationsTests(SynchronousTestCase):
    """The table, the modules and the page."""

    def test_page(self) -> None:
        """The page lists exactly the applications that the runner knows."""
        text = PAGE.read_text("utf-8")
        sections = re.findall(
            r"^## (.+)\n\n```sh\npython -m tools\.applications (\w+)\n```$", text, re.M
        )
        expected = [(each.title, name) for name, each in APPLICATIONS.items()]
        self.assertEqual(sections, expected)
        rows = re.findall(r"^\| \[(.+)\]\(#(\w+)\) \|", text, re.MULTILINE)
        self.assertEqual(rows, expected)
        self.assertEqual(len(re.findall(r"^## ", text, re.MULTILINE)), len(expected))

    def test_needs(self) -> None:
        """The page names the programs and the options of each application."""
        text = PAGE.read_text("utf-8")
        for application in APPLICATIONS.values():
            section = text.split(f"\n## {application.title}\n")[1].split("\n## ")[0]
            for word in (*application.programs, *application.options):
                self.assertIn(f"`{word}`", section)

    def test_modules(self) -> None:
        """Each module has its functions and imports without its application."""
        for name in APPLICATIONS:
            module = import_module(f"tools.applications.{name}")
            for function in ("prepare", "make_app", "drive"):
                self.assertTrue(callable(getattr(module, function)), name)
