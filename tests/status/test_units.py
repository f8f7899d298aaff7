"""Numbers, times and foreign text for people."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._status.units import (
    clipped,
    duration,
    megabytes,
    printable,
    printable_path,
    rate,
    short_duration,
)

from .snapshots import HOSTILE


class UnitTests(SynchronousTestCase):
    """The functions of `units`."""

    def test_durations(self) -> None:
        """Times have two units at most."""
        for seconds, text in [
            (0.0, "0.0 s"),
            (9.94, "9.9 s"),
            (75.0, "1 min 15 s"),
            (7200.0, "2 h"),
            (90061.0, "1 d 1 h"),
        ]:
            self.assertEqual(duration(seconds), text)
        for seconds, text in [
            (0.0, "0.0 ms"),
            (0.00123, "1.2 ms"),
            (0.0123, "12 ms"),
            (0.0999, "0.10 s"),
            (1.5, "1.50 s"),
            (75.0, "1 min 15 s"),
        ]:
            self.assertEqual(short_duration(seconds), text)

    def test_numbers(self) -> None:
        """Small rates have a decimal."""
        self.assertEqual([rate(0.04), rate(9.94), rate(9.97)], ["0.0", "9.9", "10"])
        self.assertEqual([megabytes(None), megabytes(3 << 20)], ["-", "3 MiB"])

    def test_text(self) -> None:
        """Control characters, and those that turn text around, are escaped."""
        self.assertTrue(printable(HOSTILE).isprintable())
        self.assertIn(r"\x1b[2J\r\n\u202e", printable(HOSTILE))

    def test_paths(self) -> None:
        """A path is shown as UTF-8 if it is that, and escaped otherwise."""
        self.assertEqual(printable_path("/\xc3\xa4"), "/\xe4")
        self.assertEqual(printable_path("/\xe4"), "/\xe4")
        self.assertEqual(printable_path("/a\nb"), r"/a\nb")
        self.assertEqual(printable_path("/\u65e5"), "/\u65e5")
        self.assertEqual(printable_path("/\xe2\x80\xae"), r"/\u202e")

    def test_clipped(self) -> None:
        """Text fills its columns, whatever the width of its characters."""
        self.assertEqual(clipped("abc", 5), "abc  ")
        self.assertEqual(clipped("abcdef", 4), "abc\u2026")
        self.assertEqual(clipped("abcd", 4), "abcd")
        self.assertEqual(clipped("", 0), "")
        self.assertEqual(clipped("a", 0), "")
        # Wide characters take two columns, combining ones none.
        self.assertEqual(clipped("\u65e5\u672c\u8a9e", 5), "\u65e5\u672c\u2026")
        self.assertEqual(clipped("\u65e5\u672c", 5), "\u65e5\u672c ")
        self.assertEqual(clipped("e\u0301e\u0301", 3), "e\u0301e\u0301 ")
        self.assertEqual(clipped("\u65e5\u672c\u8a9e", 4), "\u65e5\u2026 ")
