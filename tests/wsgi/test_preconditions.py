"""Preconditions and ranges, as tables of RFC 9110 sections 13 and 14."""

from __future__ import annotations

from time import gmtime, strftime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._wsgi.preconditions import (
    FAILED,
    NOT_MODIFIED,
    PROCEED,
    UNSATISFIABLE,
    Span,
    Validators,
    evaluate,
    format_date,
    parse_date,
    selected_range,
)

MODIFIED = 784111777
SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
NOW = MODIFIED + 1000.0
FILE = Validators('"abc"', MODIFIED)

RUNS = settings(max_examples=200, deadline=None, database=None, derandomize=True)


def fields(**given_fields: str) -> dict[str, str]:
    """Return fields as environ variables."""
    return {f"HTTP_{name.upper()}": value for name, value in given_fields.items()}


class DateTests(SynchronousTestCase):
    """HTTP dates (section 5.6.7)."""

    def test_formats(self) -> None:
        """All three formats are read; the first one is written."""
        for text in (
            SAME,
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ):
            self.assertEqual(parse_date(text), MODIFIED, text)
        self.assertEqual(format_date(MODIFIED + 0.9), SAME)
        self.assertEqual(parse_date("Thu, 29 Feb 2024 23:59:60 GMT"), 1709251200)
        self.assertEqual(parse_date("Thu Jan 01 00:00:00 1970"), 0)

    def test_short_years(self) -> None:
        """A year of two digits is at most 50 years in the future."""
        year = gmtime().tm_year
        for distance, expected in ((0, 0), (1, 1), (49, 49), (51, -49), (-1, -1)):
            short = (year + distance) % 100
            full = parse_date(f"Sunday, 06-Nov-{short:02d} 08:49:37 GMT")
            assert full is not None
            self.assertEqual(gmtime(full).tm_year, year + expected)

    def test_invalid(self) -> None:
        """Anything else is no date."""
        for text in (
            "",
            "now",
            "784111777",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            " " + SAME,
            SAME + "\n",
            "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
        ):
            self.assertIsNone(parse_date(text), text)

    @RUNS
    @given(st.integers(0, 4102444800))
    def test_round_trip(self, seconds: int) -> None:
        """Each date is read as it was written."""
        self.assertEqual(parse_date(format_date(seconds)), seconds)
        asctime = strftime("%a %b %d %H:%M:%S %Y", gmtime(seconds))
        self.assertEqual(parse_date(asctime), seconds)


class PreconditionTests(SynchronousTestCase):
    """The order of section 13.2.2, for GET and HEAD."""

    def test_table(self) -> None:
        """Each field alone, and each pair of which one takes precedence."""
        for given_fields, expected in (
            ({}, PROCEED),
            # 13.1.1: strong comparison.
            ({"if_match": '"abc"'}, PROCEED),
            ({"if_match": "*"}, PROCEED),
            ({"if_match": ' "x", "abc" '}, PROCEED),
            ({"if_match": 'W/"abc"'}, FAILED),
            ({"if_match": '"x"'}, FAILED),
            ({"if_match": ""}, FAILED),
            ({"if_match": "abc"}, FAILED),
            # 13.1.4.
            ({"if_unmodified_since": SAME}, PROCEED),
            ({"if_unmodified_since": AFTER}, PROCEED),
            ({"if_unmodified_since": BEFORE}, FAILED),
            ({"if_unmodified_since": "nonsense"}, PROCEED),
            ({"if_match": '"abc"', "if_unmodified_since": BEFORE}, PROCEED),
            ({"if_match": '"x"', "if_unmodified_since": AFTER}, FAILED),
            # 13.1.2: weak comparison.
            ({"if_none_match": '"abc"'}, NOT_MODIFIED),
            ({"if_none_match": 'W/"abc"'}, NOT_MODIFIED),
            ({"if_none_match": "*"}, NOT_MODIFIED),
            ({"if_none_match": '"x",W/"abc","y"'}, NOT_MODIFIED),
            ({"if_none_match": ', "x" , , "abc",'}, NOT_MODIFIED),
            ({"if_none_match": '"x"'}, PROCEED),
            ({"if_none_match": '"ABC"'}, PROCEED),
            ({"if_none_match": "abc"}, PROCEED),
            ({"if_none_match": 'w/"abc"'}, PROCEED),
            ({"if_none_match": '"abc'}, PROCEED),
            ({"if_none_match": '"abc" "x"'}, PROCEED),
            ({"if_none_match": '"abc", x'}, PROCEED),
            ({"if_none_match": '"a,b", "abc"'}, NOT_MODIFIED),
            ({"if_none_match": ""}, PROCEED),
            # 13.1.3.
            ({"if_modified_since": SAME}, NOT_MODIFIED),
            ({"if_modified_since": AFTER}, NOT_MODIFIED),
            ({"if_modified_since": BEFORE}, PROCEED),
            ({"if_modified_since": "nonsense"}, PROCEED),
            ({"if_modified_since": "Sunday, 06-Nov-94 08:49:37 GMT"}, NOT_MODIFIED),
            ({"if_none_match": '"x"', "if_modified_since": AFTER}, PROCEED),
            ({"if_none_match": '"abc"', "if_modified_since": BEFORE}, NOT_MODIFIED),
            # Both groups.
            ({"if_match": '"abc"', "if_none_match": '"abc"'}, NOT_MODIFIED),
            ({"if_match": '"x"', "if_none_match": '"abc"'}, FAILED),
            ({"if_unmodified_since": BEFORE, "if_none_match": '"abc"'}, FAILED),
            ({"if_match": '"abc"', "if_modified_since": SAME}, NOT_MODIFIED),
        ):
            self.assertEqual(
                evaluate(fields(**given_fields), FILE), expected, given_fields
            )

    def test_other_methods(self) -> None:
        """For a method that changes the resource, a match of If-None-Match fails."""
        for given_fields, expected in (
            ({"if_none_match": '"abc"'}, FAILED),
            ({"if_none_match": '"x"'}, PROCEED),
            ({"if_modified_since": AFTER}, PROCEED),
        ):
            result = evaluate(fields(**given_fields), FILE, reads=False)
            self.assertEqual(result, expected, given_fields)

    @RUNS
    @given(st.text(max_size=40), st.text(alphabet='"W/, abc*', max_size=40))
    def test_any_text(self, date: str, tags: str) -> None:
        """No field raises."""
        variables = fields(
            if_match=tags,
            if_none_match=tags,
            if_modified_since=date,
            if_unmodified_since=date,
            if_range=tags,
            range=date,
        )
        evaluate(variables, FILE)
        selected_range(variables, FILE, 10, NOW)


class RangeTests(SynchronousTestCase):
    """Section 14."""

    def selected(self, size: int = 10, **given_fields: str) -> Span | None:
        """Return the range of a request."""
        return selected_range(fields(**given_fields), FILE, size, NOW)

    def test_table(self) -> None:
        """The ranges of a representation of ten bytes."""
        for text, expected in (
            ("bytes=0-4", Span(0, 5)),
            ("bytes=0-0", Span(0, 1)),
            ("bytes=9-9", Span(9, 10)),
            ("bytes=5-", Span(5, 10)),
            ("bytes=0-", Span(0, 10)),
            ("bytes=0-9", Span(0, 10)),
            ("bytes=3-100", Span(3, 10)),
            ("bytes=3-99999999999999999999999999", Span(3, 10)),
            ("bytes=-1", Span(9, 10)),
            ("bytes=-10", Span(0, 10)),
            ("bytes=-11", Span(0, 10)),
            ("bytes=-99999999999999999999999999", Span(0, 10)),
            ("bytes=0003-0004", Span(3, 5)),
            ("BYTES=0-4", Span(0, 5)),
            ("bytes= 0-4 ", Span(0, 5)),
            ("bytes=10-", UNSATISFIABLE),
            ("bytes=10-20", UNSATISFIABLE),
            ("bytes=99999999999999999999999999-", UNSATISFIABLE),
            ("bytes=-0", UNSATISFIABLE),
            # Ignored: malformed, another unit, or several ranges.
            ("bytes=4-3", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes", None),
            ("bytes 0-4", None),
            ("bytes=a-b", None),
            ("bytes=0-4x", None),
            ("bytes=+0-4", None),
            ("bytes=0x0-4", None),
            ("bytes=0 - 4", None),
            ("bytes=--1", None),
            ("bytes=0-4,6-7", None),
            ("bytes=0-4,", None),
            ("lines=0-4", None),
            ("bytes=\u0660-4", None),
            ("", None),
        ):
            self.assertEqual(self.selected(range=text), expected, text)
        self.assertIsNone(self.selected())

    def test_empty(self) -> None:
        """An empty representation has no range that Content-Range could describe."""
        for text, expected in (
            ("bytes=0-", UNSATISFIABLE),
            ("bytes=0-0", UNSATISFIABLE),
            ("bytes=-5", None),
            ("bytes=-0", UNSATISFIABLE),
        ):
            self.assertEqual(self.selected(size=0, range=text), expected, text)

    def test_if_range(self) -> None:
        """If-Range needs a strong validator that is equal (section 13.1.5)."""
        for condition, applies in (
            ('"abc"', True),
            (' "abc" ', True),
            ('"x"', False),
            ('W/"abc"', False),
            ('"abc", "x"', False),
            ("*", False),
            ("abc", False),
            ("", False),
            (SAME, True),
            ("Sunday, 06-Nov-94 08:49:37 GMT", True),
            (BEFORE, False),
            (AFTER, False),
            ("nonsense", False),
        ):
            found = self.selected(range="bytes=0-4", if_range=condition)
            self.assertEqual(found, Span(0, 5) if applies else None, condition)

    def test_if_range_too_fresh(self) -> None:
        """A date of the present second is no strong validator (section 8.8.2.2)."""
        variables = fields(range="bytes=0-4", if_range=SAME)
        for now, expected in (
            (MODIFIED + 0.0, None),
            (MODIFIED + 0.9, None),
            (MODIFIED + 1.0, Span(0, 5)),
        ):
            self.assertEqual(selected_range(variables, FILE, 10, now), expected)

    @RUNS
    @given(st.integers(0, 30), st.none() | st.integers(0, 30), st.integers(0, 30))
    def test_bounds(self, first: int, last: int | None, size: int) -> None:
        """A range is inside of the representation, and as it was asked for."""
        text = f"bytes={first}-{'' if last is None else last}"
        found = self.selected(size=size, range=text)
        if last is not None and last < first:
            self.assertIsNone(found)
        elif first >= size:
            self.assertEqual(found, UNSATISFIABLE)
        else:
            end = size if last is None else min(last + 1, size)
            self.assertEqual(found, Span(first, end))
