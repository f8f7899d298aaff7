"""Tests of `txgreenwsgi._http.fields`: field lines and repeated fields."""

from __future__ import annotations

import string
import time

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.fields import FIELD_LINE, join_fields, read_field
from txgreenwsgi._http.head import Malformed

TCHAR = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters  # RFC 9110 5.6.2


class FieldLineTests(SynchronousTestCase):
    """Single field lines."""

    def test_names(self) -> None:
        """A line is accepted only if its name is a token (RFC 9110 5.1)."""
        for value in range(256):
            byte = bytes((value,))
            for line in (byte + b": v", byte + b"n: v", b"n" + byte + b"m: v"):
                good = FIELD_LINE.fullmatch(line) is not None
                # A colon ends the name: "n:m: v" is a field, ":n: v" has no name.
                expected = chr(value) in TCHAR or (value == 0x3A and line[0] != 0x3A)
                self.assertEqual(good, expected, line)

    def test_values(self) -> None:
        """A value may contain any byte except control characters (RFC 9110 5.5)."""
        for value in range(256):
            byte = bytes((value,))
            good = value == 0x09 or (value >= 0x20 and value != 0x7F)
            for line in (b"N:" + byte, b"N: " + byte + b"v", b"N: v" + byte):
                self.assertEqual(FIELD_LINE.fullmatch(line) is not None, good, line)

    def test_variable(self) -> None:
        """A name is converted to a variable as RFC 3875 4.1.18 defines."""
        for line, variable in (
            (b"Accept: a", ("HTTP_ACCEPT", "a")),
            (b"x-fOO-b.ar: a", ("HTTP_X_FOO_B.AR", "a")),
            (b"Content-Type: a", ("CONTENT_TYPE", "a")),
            (b"content-length: 007", ("CONTENT_LENGTH", "007")),
            (b"Content-Types: a", ("HTTP_CONTENT_TYPES", "a")),
            (b"Proxy-Connection: a", ("HTTP_PROXY_CONNECTION", "a")),
            (b"HTTP-Host: a b", ("HTTP_HTTP_HOST", "a b")),
        ):
            self.assertEqual(read_field(line), variable)

    def test_white_space_takes_linear_time(self) -> None:
        """A long run of spaces is parsed in linear time."""
        spaces = b"A:" + b" " * 100_000
        begun = time.process_time()
        self.assertEqual(read_field(spaces + b"b"), ("HTTP_A", "b"))
        with self.assertRaises(Malformed):
            read_field(spaces + b"\0")
        # Quadratic time would take more than a second.
        self.assertLess(time.process_time() - begun, 0.5)


class JoinTests(SynchronousTestCase):
    """`join_fields`."""

    def test_single(self) -> None:
        """A repeated singleton field is refused, and the reason names it."""
        for key, name in (
            ("HTTP_HOST", "Host"),
            ("CONTENT_LENGTH", "Content-Length"),
            ("CONTENT_TYPE", "Content-Type"),
        ):
            with self.assertRaises(Malformed) as caught:
                join_fields([(key, "1"), ("HTTP_A", "2"), (key, "1")])
            self.assertEqual(caught.exception.status, 400)
            self.assertEqual(caught.exception.reason, f"more than one {name} field")

    def test_three(self) -> None:
        """More than two fields of one name are joined in order."""
        variables = join_fields([("HTTP_A", "1"), ("HTTP_A", ""), ("HTTP_A", "2")])
        self.assertEqual(variables, {"HTTP_A": "1, , 2"})

    def test_dropped(self) -> None:
        """Dropped fields add no variable, even if repeated."""
        fields = map(read_field, [b"A_B: 1", b"C: 2", b"Proxy: 3", b"A_B: 4"])
        self.assertEqual(join_fields(fields), {"HTTP_C": "2"})
