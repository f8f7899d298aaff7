"""Levels of the server log by component, and the Traceparent field."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.monitoring.log_levels import LogLevels, parsed_level
from txgreenwsgi.monitoring.log_lines import LogLines
from txgreenwsgi.monitoring.traces import trace_id_of

TRACE = "0af7651916cd43dd8448eb211c80319c"


def event(namespace: str | None, level: str | None) -> dict[str, Any]:
    """Return a log event."""
    found: dict[str, Any] = {"log_format": "hello", "log_time": 0}
    if namespace is not None:
        found["log_namespace"] = namespace
    if level is not None:
        found["log_level"] = LogLevel.levelWithName(level)
    return found


class LogLevelsTests(SynchronousTestCase):
    """`LogLevels`."""

    def test_default(self) -> None:
        """Without levels, everything is logged."""
        levels = LogLevels(())
        self.assertFalse(levels)
        self.assertTrue(levels.allows(event("a", "debug")))

    def test_components(self) -> None:
        """The longest namespace that contains the component counts."""
        levels = LogLevels(["warn", "shop=debug", "shop.db=error", "shop.db=info"])
        for namespace, level, expected in (
            ("other", "info", False),
            ("other", "warn", True),
            ("shop", "debug", True),
            ("shop.cart", "debug", True),
            ("shopping", "info", False),
            ("shop.db", "debug", False),
            ("shop.db.pool", "info", True),
            ("shop.db.pool", "debug", False),
            (None, "critical", True),
            ("other", None, False),  # info
            ("shop", None, True),
        ):
            found = levels.allows(event(namespace, level))
            self.assertEqual(found, expected, (namespace, level))

    def test_words(self) -> None:
        """A level may have a component in front; other words are errors."""
        self.assertEqual(parsed_level("info"), ("", "info"))
        self.assertEqual(parsed_level("a.b-c=warn"), ("a.b-c", "warn"))
        for word in ("", "verbose", "=info", "a=", "a b=info", "a=INFO"):
            self.assertRaises(ValueError, parsed_level, word)

    def test_lines(self) -> None:
        """A line below the level is not written, in any format."""
        for name in ("text", "dev", "json"):
            lines = LogLines(name, lambda: None, levels=LogLevels(["warn"]))
            self.assertIsNone(lines(event("a", "info")))
            self.assertIn("hello", lines(event("a", "warn")) or "")


class TraceTests(SynchronousTestCase):
    """`trace_id_of`, and the field in JSON lines."""

    def test_trace_id(self) -> None:
        """Only a valid field has a trace."""
        valid = f"00-{TRACE}-b7ad6b7169203331-01"
        self.assertEqual(trace_id_of(valid), TRACE)
        self.assertEqual(trace_id_of(f"01-{valid[3:]}-more"), TRACE)
        for wrong in (
            "",
            "x",
            f"{valid}-more",
            valid.upper(),
            f"ff-{valid[3:]}",
            valid.replace(TRACE, "0" * 32),
            f"00-{TRACE}-{'0' * 16}-01",
            f"{valid}\n",
            f"{valid},{valid}",
        ):
            self.assertEqual(trace_id_of(wrong), "", wrong)

    def test_event_about_a_worker(self) -> None:
        """An event of the master about a worker is no event of the worker."""
        about = {**event("a", "error"), "worker": object()}
        for name in ("text", "dev", "json"):
            lines = LogLines(name, lambda: None)
            self.assertNotIn("object", lines(about) or "object")
        lines = LogLines("json", lambda: None)
        self.assertIn(
            '"worker": "worker 1"', lines(about | {"worker": "worker 1"}) or ""
        )

    def test_json_lines(self) -> None:
        """A JSON line has the trace of its request."""
        traceparent = f"00-{TRACE}-b7ad6b7169203331-01"
        lines = LogLines("json", lambda: "4f2a", lambda: traceparent)
        line = lines(event("a", "info")) or ""
        self.assertIn(f'"trace_id": "{TRACE}", "traceparent": "{traceparent}"', line)
        lines = LogLines("json", lambda: "4f2a", lambda: "evil")
        self.assertNotIn("trace", lines(event("a", "info")) or "")
        of_worker = {**event("a", "info"), "traceparent": traceparent}
        self.assertIn(f'"trace_id": "{TRACE}"', lines(of_worker) or "")
