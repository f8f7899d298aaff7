"""Tests of `txgreenwsgi._http.writer`: valid and refused response heads."""

from __future__ import annotations

from collections import deque
from email.utils import parsedate_to_datetime
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http import writer
from txgreenwsgi._http.writer import (
    HOP_BY_HOP,
    EarlyHints,
    InvalidField,
    ResponseHead,
    date_field,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        """A status must be three digits, then nothing or a space and a reason."""
        for status in ("200 OK", "200 ", "404 Not Found", "999 \xe4"):
            line = f"HTTP/1.1 {status}\r\n".encode("latin-1")
            self.assertTrue(encoded(status=status).startswith(line))
        for status in (
            "20",
            "2000",
            "200OK",
            " 200",
            "2x0 OK",
            "200\tOK",
            "\u0662\u0660\u0660 OK",
            "200 OK\n",
        ):
            self.assertRaises(InvalidField, encoded, status=status)
        for character in CONTROLS:
            self.assertRaises(InvalidField, encoded, status=f"200 O{character}K")

    def test_status_without_reason(self) -> None:
        """A missing reason is added, with the space that must precede it.

        RFC 9112 section 4.
        """
        for status, line in (
            ("200", b"HTTP/1.1 200 OK\r\n"),
            ("404", b"HTTP/1.1 404 Not Found\r\n"),
            ("299", b"HTTP/1.1 299 \r\n"),
            ("999", b"HTTP/1.1 999 \r\n"),
        ):
            for _ in range(2):  # the second time from the cache
                self.assertTrue(encoded(status=status).startswith(line), status)
        self.assertEqual(ResponseHead("404", []).reason, b"Not Found")
        self.assertEqual(ResponseHead("299", []).reason, b"")
        for status in ("100", "101", "103", "099", "000"):
            self.assertRaises(InvalidField, encoded, status=status)

    def test_pairs(self) -> None:
        """A field may be any pair, and the fields any iterable of pairs."""

        class Pairs:
            def __init__(self, *pairs: Any) -> None:
                self._pairs = pairs

            def __getitem__(self, index: int) -> Any:
                return self._pairs[index]

        class Pair(NamedTuple):
            name: str
            value: str

        pair = ("X-Pair", "1")
        fields: Any
        for fields in (
            [pair],
            [list(pair)],
            [iter(pair)],
            [Pair(*pair)],
            (pair,),
            {pair},
            iter([pair]),
            (each for each in [list(pair)]),
            dict([pair]).items(),
            zip(["X-Pair"], ["1"], strict=True),
            Pairs(pair),
            deque([pair]),
        ):
            head = ResponseHead("200 OK", fields)
            self.assertEqual(head.fields(), [(b"X-Pair", b"1")], fields)
        fields = iter([["Content-Length", "3"], ["DATE", "d"]])
        head = ResponseHead("200 OK", fields)
        self.assertEqual(head.content_length, 3)
        self.assertNotIn(DATE, head.encode(DATE, SERVER, b""))

    def test_wrong_pairs(self) -> None:
        """Other fields are refused with TypeError; the message says what to give."""
        wrong: list[Any] = [("X", ["1"]), (["X"], "1"), {"X": "1"}, None, 5, "Xy"]
        wrong += [
            repeat("X"),
            {"X", "1"},
            {"X": 0, "1": 0},
            b"Xy",
            "X: 1",
            (),
            ("X",),
            ("X", "1", "2"),
            ("X", 1),
            (b"X", "1"),
        ]
        for field in wrong:
            error = self.assertRaises(TypeError, encoded, field)
            self.assertIn("response field", str(error))
        fields: Any
        for fields in (None, 5, "X: 1", b"X: 1", {"X": "1"}, {}, ResponseHead):
            error = self.assertRaises(TypeError, ResponseHead, "200 OK", fields)
            self.assertIn("; give ", str(error))
        self.assertIn(
            "items()", str(self.assertRaises(TypeError, ResponseHead, "200", {}))
        )

    def test_failing_iterable(self) -> None:
        """An exception of the iterable propagates."""

        def fields() -> Iterator[tuple[str, str]]:
            yield "X", "1"
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, ResponseHead, "200 OK", fields())

    def test_subclasses_of_str(self) -> None:
        """The text that was validated is sent, however a subclass formats itself."""

        class Evil(str):
            __slots__ = ()

            def __str__(self) -> str:
                return "evil\r\n"

            def __format__(self, form: str) -> str:
                return "evil\r\n"

        data = encoded((Evil("X-Sub"), Evil("sub")), status=Evil("200 Sub"))
        self.assertEqual(
            data, b"HTTP/1.1 200 Sub\r\nX-Sub: sub\r\nServer: s\r\nDate: d\r\n\r\n"
        )

    def test_hop_by_hop(self) -> None:
        """Fields of the connection are dropped, and their names are kept."""
        for name in HOP_BY_HOP:
            for spelt in (name, name.title(), name.upper()):
                for _ in range(2):  # the second time from the cache
                    head = ResponseHead("200 OK", [("A", "1"), (spelt, ""), ("B", "2")])
                    self.assertEqual(head.fields(), [(b"A", b"1"), (b"B", b"2")])
                    self.assertEqual(head.dropped, (spelt,))
                    self.assertFalse(head.ends_connection)
        self.assertEqual(ResponseHead("200 OK", [("A", "1")]).dropped, ())

    def test_connection(self) -> None:
        """`Connection: close` is dropped too, and ends the connection."""
        for value, ends in (
            ("close", True),
            ("Close", True),
            ("keep-alive, CLOSE", True),
            ("x,close\t, y", True),
            ("keep-alive", False),
            ("closed", False),
            ("x close", False),
            ("", False),
        ):
            head = ResponseHead("200 OK", [("Connection", value)])
            self.assertEqual(head.ends_connection, ends, value)
            self.assertEqual(head.fields(), [])
        head = ResponseHead("200", [("Connection", "close"), ("Connection", "x")])
        self.assertTrue(head.ends_connection)

    def test_transfer_codings(self) -> None:
        """Codings that leave the body unchanged are dropped; others are refused."""
        for value in ("chunked", "Chunked", "identity", "identity, chunked", ""):
            head = ResponseHead("200 OK", [("Transfer-Encoding", value)])
            self.assertEqual(head.dropped, ("Transfer-Encoding",))
        for value in ("gzip", "gzip, chunked", "chunked, br", "x", "chunked;q=1"):
            for _ in range(2):
                error = self.assertRaises(
                    InvalidField, encoded, ("transfer-encoding", value)
                )
                self.assertIn("cannot be dropped", str(error))

    def test_dropped_fields_are_validated(self) -> None:
        """A dropped field with an invalid value is refused: its text is hostile."""
        for value in ("a\r\nevil: 1", "\0", "\u20ac"):
            self.assertRaises(InvalidField, encoded, ("Connection", value))

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


class EarlyHintsTests(SynchronousTestCase):
    """`EarlyHints`."""

    def test_encoded(self) -> None:
        """A 103 response has the fields in order, and nothing else (RFC 8297)."""
        fields = [("Link", "</a.css>; rel=preload"), ("link", "</b>"), ("X", "\xe4")]
        hints = EarlyHints(iter(fields))
        self.assertEqual(
            hints.encode(),
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n"
            b"link: </b>\r\nX: \xe4\r\n\r\n",
        )
        self.assertEqual(
            hints.fields(),
            [(b"Link", b"</a.css>; rel=preload"), (b"link", b"</b>"), (b"X", b"\xe4")],
        )
        self.assertEqual(EarlyHints([]).fields(), [])

    def test_refused(self) -> None:
        """Fields that an interim response must not have are refused."""
        for field in (
            *(
                ("Link", "a\r\nb: c"),
                ("Li nk", "a"),
                ("Link", "\0"),
                ("Link", "\u20ac"),
            ),
            *((name, "close") for name in HOP_BY_HOP),
            ("Content-Length", "5"),
        ):
            self.assertRaises(InvalidField, EarlyHints, [field])
        wrong: Any
        for wrong in (None, {"Link": "a"}, "Link", [("Link",)], [("Link", 1)], ["Li"]):
            self.assertRaises(TypeError, EarlyHints, wrong)


class DateTests(SynchronousTestCase):
    """The Date line (RFC 9110 section 6.6.1)."""

    def test_date(self) -> None:
        """The time is formatted as an IMF-fixdate."""
        line = date_field(784111777.9)
        self.assertEqual(line, b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
        moment = parsedate_to_datetime(line[6:-2].decode("ascii"))
        self.assertEqual(moment.timestamp(), 784111777)
