"""Tests of `txgreenwsgi._http.writer`: valid and refused response heads."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http import writer
from txgreenwsgi._http.writer import InvalidField, ResponseHead, date_field

SERVER = b"Server: s\r\n"
DATE = b"Date: d\r\n"

#: Characters that a value must not contain (RFC 9110 section 5.5).
CONTROLS = [chr(code) for code in (*range(32), 127) if chr(code) != "\t"]


def encoded(*fields: Any, status: str = "200 OK", framing: bytes = b"") -> bytes:
    """Return the bytes of a head with these fields."""
    return ResponseHead(status, list(fields)).encode(DATE, SERVER, framing)


class ResponseHeadTests(SynchronousTestCase):
    """`ResponseHead`."""

    def test_order(self) -> None:
        """The status line, the application's fields in order, then the server's."""
        self.assertEqual(
            encoded(("X-One", "1"), ("x-TWO", ""), ("X-One", "2"), framing=b"F: f\r\n"),
            b"HTTP/1.1 200 OK\r\nX-One: 1\r\nx-TWO: \r\nX-One: 2\r\n"
            b"Server: s\r\nDate: d\r\nF: f\r\n\r\n",
        )

    def test_own_server_and_date(self) -> None:
        """Server and Date of the application replace those of the server."""
        self.assertNotIn(SERVER, encoded(("SERVER", "mine")))
        self.assertNotIn(DATE, encoded(("date", "today")))

    def test_cache(self) -> None:
        """A cached head is encoded the same, and the size of the caches is bounded."""
        first = encoded(("X-Same", "1"))
        for number in range(3000):
            encoded(("X-Number", str(number)))
        encoded(("X-Long", "x" * 100_000))
        self.assertEqual(encoded(("X-Same", "1")), first)
        self.assertLessEqual(len(writer.encoded_fields), 1024)
        for number in range(200, 1000):
            for word in ("a", "b"):
                encoded(status=f"{number} {word}")
        self.assertLessEqual(len(writer.encoded_statuses), 1024)
        self.assertLess(max(len(value) for _, value in writer.encoded_fields), 201)

    def test_values(self) -> None:
        """A value may contain every latin-1 character except control characters."""
        value = "".join(
            character for character in map(chr, range(256)) if character not in CONTROLS
        )
        self.assertIn(f"X: {value}\r\n".encode("latin-1"), encoded(("X", value)))

    def test_controls_in_values(self) -> None:
        """Control characters in a value are refused at every position."""
        for character in CONTROLS:
            for value in (f"{character}a", f"a{character}b", f"a{character}"):
                error = self.assertRaises(InvalidField, encoded, ("X-Foo", value))
                self.assertIn("X-Foo contains a control character", str(error))

    def test_names(self) -> None:
        """A name must be a token (RFC 9110 section 5.6.2)."""
        allowed = "!#$%&'*+-.^_`|~"
        for code in range(256):
            character = chr(code)
            name = f"X{character}Y"
            if character in allowed or (character.isascii() and character.isalnum()):
                self.assertIn(name.encode("ascii") + b": 1\r\n", encoded((name, "1")))
            else:
                self.assertRaises(InvalidField, encoded, (name, "1"))
        for name in ("", "X\n", "\u0660"):
            self.assertRaises(InvalidField, encoded, (name, "1"))

    def test_statuses(self) -> None:
        """A status must be three digits, a space and a reason."""
        for status in ("200 OK", "200 ", "404 Not Found", "999 \xe4"):
            line = f"HTTP/1.1 {status}\r\n".encode("latin-1")
            self.assertTrue(encoded(status=status).startswith(line))
        for status in ("200", "200OK", "2x0 OK", "\u0662\u0660\u0660 OK", "200 OK\n"):
            self.assertRaises(InvalidField, encoded, status=status)
        for character in CONTROLS:
            self.assertRaises(InvalidField, encoded, status=f"200 O{character}K")

    def test_unhashable(self) -> None:
        """Fields that are not hashable are refused with TypeError."""
        wrong: list[Any] = [["X", "1"], ("X", ["1"]), (["X"], "1"), {"X": "1"}, None]
        for field in wrong:
            self.assertRaises(TypeError, encoded, field)

    def test_content_length(self) -> None:
        """Content-Length is parsed, must be a number, and may occur once."""
        for name in ("Content-Length", "content-length"):
            head = ResponseHead("200 OK", [(name, "123")])
            self.assertEqual(head.content_length, 123)
        self.assertIsNone(ResponseHead("200 OK", []).content_length)
        for value in ("", "-1", "1 ", "0x1", "1e3", "\xb2", "1_0"):
            self.assertRaises(InvalidField, encoded, ("Content-Length", value))
        self.assertRaises(
            InvalidField, encoded, ("Content-Length", "1"), ("Content-length", "1")
        )

    def test_huge_content_length(self) -> None:
        """A Content-Length of thousands of digits is refused, in a short message."""
        error = self.assertRaises(InvalidField, encoded, ("Content-Length", "9" * 5000))
        self.assertLess(len(str(error)), 500)

    def test_content_length_of_204(self) -> None:
        """Content-Length is removed from a 204 response (RFC 9110 section 8.6)."""
        data = encoded(("Content-Length", "0"), ("X", "1"), status="204 No Content")
        self.assertNotIn(b"Content-Length", data)
        self.assertIn(b"X: 1\r\n", data)

    def test_has(self) -> None:
        """has() finds the fields of the application, case-insensitively."""
        head = ResponseHead("200 OK", [("x-FOO", "1"), ("Y", "x-bar: 2")])
        self.assertTrue(head.has(b"x-foo"))
        self.assertFalse(head.has(b"x-fo"))
        self.assertFalse(head.has(b"x-bar"))
        self.assertFalse(head.has(b"http/1.1 200 ok"))

    def test_for_another_writer(self) -> None:
        """The reason and the validated fields are available separately."""
        head = ResponseHead("404 Not: Found", [("X", "a: b"), ("Y", "")])
        self.assertEqual(head.reason, b"Not: Found")
        self.assertEqual(head.fields(), [(b"X", b"a: b"), (b"Y", b"")])


class DateTests(SynchronousTestCase):
    """The Date line (RFC 9110 section 6.6.1)."""

    def test_date(self) -> None:
        """The time is formatted as an IMF-fixdate."""
        line = date_field(784111777.9)
        self.assertEqual(line, b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
        moment = parsedate_to_datetime(line[6:-2].decode("ascii"))
        self.assertEqual(moment.timestamp(), 784111777)
