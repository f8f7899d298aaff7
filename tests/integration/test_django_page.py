"""The new project of docs/django.md, made as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, TWISTD

PAGE = CHECKOUT / "docs" / "django.md"
SECONDS = 60.0


class NewProjectTests(SynchronousTestCase):
    """The section "A new project"."""

    def setUp(self) -> None:
        """Start a project, as `django-admin` does."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.run_python("-m", "django", "startproject", "myproject", ".")

    def run_python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the directory of the project."""
        paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run `twistd -n greenwsgi --check` on the project."""
        app = "myproject.wsgi:application"
        options = ("-n", "--pidfile=", "greenwsgi", "--check", "--app", app)
        return self.run_python(*TWISTD[1:], *options)

    def change_settings(self) -> None:
        """Append the settings of the page; `...` is the project's own value."""
        section = PAGE.read_text("utf-8").split("\n## A new project\n")[1]
        block = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
        assert block is not None
        settings = block[1].replace("[...,", "[*INSTALLED_APPS,")
        self.assertNotIn("...", settings)
        with (self.folder / "myproject" / "settings.py").open("a") as file:
            file.write(f"\n{settings}")

    def test_database_backend(self) -> None:
        """`--check` reports Django's SQLite backend, but not that of the page."""
        result = self.check()
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("BLOCKS     DATABASES['default']['ENGINE']", result.stdout)
        self.change_settings()
        result = self.check()
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertNotIn("BLOCKS", result.stdout)
        self.assertEqual(self.run_python("manage.py", "migrate").returncode, 0)

    def test_development_server(self) -> None:
        """`rungreen` exists only with the application of the page."""
        result = self.run_python("manage.py", "rungreen", "--help")
        self.assertIn("Unknown command: 'rungreen'", result.stderr)
        self.change_settings()
        result = self.run_python("manage.py", "rungreen", "--help")
        self.assertEqual(result.returncode, 0, result.stderr)
