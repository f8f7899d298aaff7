"""The table of gunicorn's settings."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._configuration import all_options, markdown_table
from txgreenwsgi._migration.gunicorn_settings import SETTINGS, markdown_tables

from .gunicorn_names import FLAGS

DOCS = Path(__file__).resolve().parents[2] / "docs"

#: Options of `txgreenwsgi` itself, for the process.
PROCESS = {"log-file", "syslog-prefix", "json"}


def known_options() -> set[str]:
    """Return every option of the command, of twistd and of `txgreenwsgi`."""
    rows = re.findall(r"^\| `--([a-z-]+)", markdown_table(), re.M)
    twistd: Any = ServerOptions()
    return {*rows, *(name.rstrip("=") for name in twistd.longOpt), *PROCESS}


def rows_of(page: str) -> list[tuple[str, str, str]]:
    """Return the rows of the tables of a page, without their heads."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(r"^\| (`[^|]*) \| ([^|]*) \|(?: ([^|]*))? ?\|$", text, re.M)


class TableTests(SynchronousTestCase):
    """`SETTINGS`."""

    def test_complete(self) -> None:
        """Every setting of gunicorn has a row, with its options."""
        rows = {each.name: each.flags for each in SETTINGS}
        self.assertEqual(rows, FLAGS)
        self.assertEqual(len(rows), len(SETTINGS))

    def test_installed_gunicorn(self) -> None:
        """So does every setting of the installed gunicorn."""
        self.assertIsNotNone(find_spec("gunicorn"))
        from gunicorn.config import KNOWN_SETTINGS

        rows = {each.name: set(each.flags) for each in SETTINGS}
        for setting in KNOWN_SETTINGS:
            self.assertIn(setting.name, rows)
            self.assertLessEqual(set(setting.cli or ()), rows[setting.name])

    def test_counterpart_or_reason(self) -> None:
        """Each row has a counterpart or a reason."""
        for each in SETTINGS:
            self.assertTrue(each.ours or each.note, each.name)
            if not each.ours:
                self.assertTrue(each.note, each.name)

    def test_page(self) -> None:
        """docs/moving.md has the tables."""
        self.assertIn(markdown_tables(), (DOCS / "moving.md").read_text("utf-8"))


class OptionNameTests(SynchronousTestCase):
    """The options that the pages about migrations recommend."""

    def test_options(self) -> None:
        """Each recommended option exists."""
        known = known_options()
        for page, least in (("moving.md", 121), ("moving-uwsgi.md", 150)):
            rows = rows_of(page)
            self.assertGreaterEqual(len(rows), least)
            for _theirs, ours, note in rows:
                named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", f"{ours} {note}"))
                self.assertEqual(named - known, set(), f"{page}: {ours} {note}")

    def test_keys(self) -> None:
        """Each key of the example of uWSGI is an option."""
        page = (DOCS / "moving-uwsgi.md").read_text("utf-8")
        found = re.search(r"^```toml\n(.*?)^```$", page, re.M | re.S)
        assert found is not None
        keys = re.findall(r"^(\w+) =", found[1], re.M)
        self.assertLessEqual(set(keys), set(all_options()))
