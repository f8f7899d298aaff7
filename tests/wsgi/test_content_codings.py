"""Accept-Encoding (RFC 9110 section 12.5.3)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._wsgi.content_codings import accepted_codings, preferred_coding

ALL = ("br", "zstd", "gzip")


class CodingTests(SynchronousTestCase):
    """The choice of a coding."""

    def test_table(self) -> None:
        """The field, the available codings and the choice."""
        for field, available, expected in (
            ("", ALL, ""),
            ("gzip", ALL, "gzip"),
            ("gzip, br", ALL, "br"),
            ("br, gzip", ("gzip",), "gzip"),
            ("gzip, deflate, br, zstd", ALL, "br"),
            ("gzip, deflate, zstd", ALL, "zstd"),
            ("GZIP", ALL, "gzip"),
            ("x-gzip", ALL, "gzip"),
            ("deflate", ALL, ""),
            ("gzip;q=0.5, br;q=0.1", ALL, "gzip"),
            ("gzip;q=0.5,br;q=0.500", ALL, "br"),
            ("gzip;q=0", ALL, ""),
            ("gzip;q=0.000, br;q=0", ALL, ""),
            ("gzip;q=0.001", ALL, "gzip"),
            ("gzip ; q=1", ALL, "gzip"),
            ("gzip;Q=0", ALL, ""),
            ("*", ALL, "br"),
            ("*;q=0", ALL, ""),
            ("*;q=0, gzip", ALL, "gzip"),
            ("br;q=0, *", ALL, "zstd"),
            ("*;q=0.1, gzip;q=0.5", ALL, "gzip"),
            ("identity", ALL, ""),
            ("identity, gzip", ALL, "gzip"),
            ("identity;q=1, gzip;q=0.5", ALL, ""),
            ("identity;q=0.5, gzip;q=1", ALL, "gzip"),
            ("identity;q=0, gzip;q=0.1", ALL, "gzip"),
            ("identity;q=0", ALL, ""),
            ("identity;q=0.5, *;q=0", ALL, ""),
            # Malformed elements are ignored.
            ("gzip;q=2", ALL, ""),
            ("gzip;q=-1", ALL, ""),
            ("gzip;q=0.0001", ALL, ""),
            ("gzip;q=", ALL, ""),
            ("gzip;level=9", ALL, ""),
            ("gz ip", ALL, ""),
            ("gzip;q=x, br", ALL, "br"),
            (", ,gzip,", ALL, "gzip"),
            ("gzip", (), ""),
        ):
            self.assertEqual(preferred_coding(field, available), expected, field)

    def test_repeated(self) -> None:
        """Of a repeated coding the first weight counts."""
        self.assertEqual(accepted_codings("gzip;q=0, gzip"), {"gzip": 0.0})

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(st.text(max_size=60))
    def test_any_text(self, field: str) -> None:
        """No field raises."""
        self.assertIn(preferred_coding(field, ALL), ("", *ALL))
