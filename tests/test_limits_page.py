"""The page of limits says what the settings and the code say."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http import parser, target
from txgreenwsgi._server import accepting, body, channel, service
from txgreenwsgi.settings import described, shown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "limits.md"


class LimitsPageTests(SynchronousTestCase):
    """docs/limits.md."""

    def setUp(self) -> None:
        """Read the rows of its tables."""
        text = PAGE.read_text("utf-8")
        self.rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines()
            if line.startswith("| ")
        ]
        self.text = text

    def test_options(self) -> None:
        """Every setting that is a limit has a row with its default."""
        defaults = {row[1]: row[2] for row in self.rows if row[1].startswith("`--")}
        for name, setting, default in described():
            if setting.kind in ("count", "bytes", "seconds"):
                unit = " s" if setting.kind == "seconds" and default else ""
                said = defaults.pop(f"`--{name.replace('_', '-')}`", "")
                self.assertEqual(said, f"`{shown(setting, default)}`{unit}", name)
        self.assertEqual(defaults, {})

    def test_constants(self) -> None:
        """What has no option is as the page says."""
        fixed = {row[0]: row[2] for row in self.rows if row[1] == ""}
        self.assertEqual(
            fixed,
            {
                "length of a method": str(target.METHOD_LIMIT_BYTES),
                "empty lines before a request": str(parser._EMPTY_LINES),
                "what an application has left unread when it has answered": (
                    f"{body.DRAIN_BYTES // 1024} KiB, {channel._CLOSE_SECONDS:g} s"
                ),
                "what is held for a client that is behind": (
                    "the block that is being sent"
                ),
                "time for closing a connection": f"{channel._CLOSE_SECONDS:g} s",
                "pipelined requests of one connection that are looked at": "1",
                "file descriptors": (
                    f"{accepting._SPARE} less than the process may have, at most an "
                    "eighth less"
                ),
            },
        )
        self.assertIn(f"({service._BACKLOG} connections)", self.text)
        self.assertEqual(body._SLOW_SECONDS, 60, "a minute")
        self.assertEqual(accepting._TRY_SECONDS, 0.1, "ten times a second")
        self.assertEqual(accepting._LOG_SECONDS, 60, "once a minute")

    def test_commands(self) -> None:
        """Each command names tests that exist, and variables that they read."""
        root = PAGE.parents[1]
        commands = re.findall(r"^    (?:TX\w+=\S+ )*trial (.+)$", self.text, re.M)
        self.assertGreater(len(commands), 3)
        for command in commands:
            for module in command.split():
                path = root / module.replace(".", "/")
                self.assertTrue(
                    path.is_dir() or path.with_suffix(".py").exists(), module
                )
        tests = "".join(
            path.read_text("utf-8") for path in (root / "tests").rglob("*.py")
        )
        for variable in set(re.findall(r"TXGREENWSGI_\w+", self.text)):
            self.assertIn(variable, tests)
