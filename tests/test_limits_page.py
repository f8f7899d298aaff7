"""The page "Limits and timeouts" agrees with the settings and the code."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http import parser, proxy_protocol, target
from txgreenwsgi._http2 import connection as http2
from txgreenwsgi._server import accepting, channel, endpoints, h2_channel
from txgreenwsgi._serving import body
from txgreenwsgi._switching import greenlets
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
        """Each setting that is a limit has a row with its default."""
        defaults = {row[1]: row[2] for row in self.rows if row[1].startswith("`--")}
        for name, setting, default in described():
            if setting.kind in ("count", "bytes", "seconds"):
                unit = " s" if setting.kind == "seconds" and default else ""
                said = defaults.pop(f"`--{name.replace('_', '-')}`", "")
                self.assertEqual(said, f"`{shown(setting, default)}`{unit}", name)
        self.assertEqual(defaults, {})

    def test_constants(self) -> None:
        """Limits without an option have the values on the page."""
        fixed = {row[0]: row[2] for row in self.rows if row[1] == ""}
        self.assertEqual(
            fixed,
            {
                "running requests of a connection whose client resets streams": (
                    "twice `--http2-max-streams`"
                ),
                "reset streams": (
                    f"{http2.RESETS}, then {http2.RESETS_PER_SECOND} a second"
                ),
                "frames without requests or data": (
                    f"{http2.USELESS}, then {http2.USELESS_PER_SECOND} a second"
                ),
                "frames of a head": str(http2.MAX_BLOCK_FRAMES),
                "answers to frames that wait for a client": (
                    f"{h2_channel.EXCESS_BYTES // 1024} KiB"
                ),
                "length of a method": str(target.METHOD_LIMIT_BYTES),
                "empty lines before a request": str(parser.EMPTY_LINES_LIMIT),
                "unread body after the response": (
                    f"{channel.DRAIN_BYTES // 1024} KiB, {channel.CLOSE_SECONDS:g} s"
                ),
                "length of a PROXY protocol header": (
                    f"{proxy_protocol.MAX_LINE_BYTES} bytes (version 1), "
                    f"{proxy_protocol.MAX_BYTES // 1024} KiB (version 2)"
                ),
                "data buffered for a slow client": "the current block",
                "time for closing a connection": f"{channel.CLOSE_SECONDS:g} s",
                "pipelined requests parsed per connection": "1",
                "time for all that is ready in one turn of the reactor": (
                    f"{greenlets.SLICE_SECONDS * 1000:g} ms"
                ),
                "share of one request or connection in it": (
                    f"at least {greenlets.MIN_SLICE_SECONDS * 1000:g} ms"
                ),
                "file descriptors": (
                    f"{accepting.RESERVED_DESCRIPTORS} less than the process limit, "
                    "at most an eighth less"
                ),
            },
        )
        self.assertIn(f"({endpoints.BACKLOG} connections)", self.text)
        self.assertEqual(body.SLOW_SECONDS, 60, "a minute")
        self.assertEqual(accepting.RETRY_SECONDS, 0.1, "ten times a second")
        self.assertEqual(accepting.LOG_SECONDS, 60, "once a minute")

    def test_commands(self) -> None:
        """Each command names existing tests and variables that they read."""
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
