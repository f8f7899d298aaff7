"""What `txgreenwsgi._http.target` promises about request lines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.head import Malformed
from txgreenwsgi._http.target import (
    METHODS,
    RequestLine,
    check_request_line,
    read_request_line,
)

TARGETS: dict[str, tuple[bytes, str, str, str | None]] = {
    "the root": (b"/", "/", "", None),
    "a path and a query": (b"/a/b?c=d&e", "/a/b", "c=d&e", None),
    "an empty query": (b"/a?", "/a", "", None),
    "a query with question marks": (b"/a??b?c", "/a", "?b?c", None),
    "a query with an address": (b"/a?b=http://c/", "/a", "b=http://c/", None),
    "two slashes are a path, not an authority (RFC 9112 3.2.1)": (
        b"//x/y",
        "//x/y",
        "",
        None,
    ),
    "dots are the application's": (b"/a/../b/./c", "/a/../b/./c", "", None),
    "the path is decoded once": (b"/a%20b%2Fc%2525", "/a b/c%25", "", None),
    "what was UTF-8 is latin-1 (PEP 3333, String Types)": (
        b"/%C3%a4",
        "/\xc3\xa4",
        "",
        None,
    ),
    "an encoded question mark is of the path": (b"/a%3Fb?c", "/a?b", "c", None),
    "an encoded NUL is the application's": (b"/a%00", "/a\0", "", None),
    "a percent sign alone stays": (b"/100%", "/100%", "", None),
    "half an encoding stays": (b"/%4", "/%4", "", None),
    "what is no hexadecimal stays": (b"/%zz%41%u0041", "/%zzA%u0041", "", None),
    "a plus stays": (b"/a+b?c+d", "/a+b", "c+d", None),
    "the query is not decoded": (b"/?a%20b%zz", "/", "a%20b%zz", None),
    "what RFC 3986 forbids but clients send": (
        b'/{a}|"b"<c>\\^`[d]',
        '/{a}|"b"<c>\\^`[d]',
        "",
        None,
    ),
    "absolute-form": (b"http://a.b:80/c?d", "/c", "d", "a.b:80"),
    "absolute-form of another case": (b"hTTpS://A/", "/", "", "A"),
    "absolute-form without a path": (b"http://a", "/", "", "a"),
    "absolute-form with a query alone": (b"http://a?b/c", "/", "b/c", "a"),
    "absolute-form of IPv6": (b"http://[::1]:8080/", "/", "", "[::1]:8080"),
    "absolute-form with a path in the path": (
        b"http://a//b/http://c/",
        "//b/http://c/",
        "",
        "a",
    ),
}


class TargetTests(SynchronousTestCase):
    """The forms of a target."""

    def test_targets(self) -> None:
        """A target gives the path, the query and the host that its form means."""
        for sentence, (target, path, query, authority) in TARGETS.items():
            read = read_request_line(b"GET " + target + b" HTTP/1.1")
            expected = RequestLine("GET", target, path, query, "HTTP/1.1", authority)
            self.assertEqual(read, expected, sentence)

    def test_asterisk(self) -> None:
        """An asterisk is a path of its own, for OPTIONS alone (RFC 9112 3.2.4)."""
        read = read_request_line(b"OPTIONS * HTTP/1.0")
        expected = RequestLine("OPTIONS", b"*", "*", "", "HTTP/1.0", None)
        self.assertEqual(read, expected)
        with self.assertRaises(Malformed):
            read_request_line(b"POST * HTTP/1.1")

    def test_methods(self) -> None:
        """Every method of the table is read, as it is spelt."""
        for method in METHODS:
            line = method + b" / HTTP/1.1"
            self.assertEqual(read_request_line(line).method, method.decode())
            self.assertTrue(check_request_line(line + b"\r\n", 1))


class AgreementTests(SynchronousTestCase):
    """The two readers of a request line: the quick one and the one that explains."""

    def _verdict(self, line: bytes) -> bool:
        """Return whether a line is good; both readers must think alike."""
        try:
            checked = check_request_line(line + b"\r\n", len(line))
        except Malformed:
            with self.assertRaises(Malformed, msg=line):
                read_request_line(line)
            return False
        self.assertTrue(checked, line)
        read_request_line(line)
        return True

    def test_every_byte_everywhere(self) -> None:
        """No byte put anywhere into a good line is good for one of them alone."""
        good = 0
        for line in (
            b"GET /a HTTP/1.1",
            b"M-SEARCH /?b HTTP/1.0",
            b"OPTIONS * HTTP/1.1",
            b"GET http://a:1/b HTTP/1.1",
        ):
            for at in range(len(line)):
                for value in range(256):
                    byte = bytes((value,))
                    good += self._verdict(line[:at] + byte + line[at:])
                    good += self._verdict(line[:at] + byte + line[at + 1 :])
        self.assertGreater(good, 1000)

    def test_every_beginning(self) -> None:
        """A good line has no beginning that is refused or taken for the whole."""
        for target, *_ in TARGETS.values():
            line = b"GET " + target + b" HTTP/1.1\r\n"
            for end in range(len(line)):
                self.assertFalse(check_request_line(line[:end], len(target)))
            self.assertTrue(check_request_line(line, len(target)))
            self.assertTrue(check_request_line(line + b"\n\0more", len(target)))
