"""Tests of `txgreenwsgi._http.target`: request lines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.head import Malformed
from txgreenwsgi._http.target import (
    METHOD_LIMIT_BYTES,
    RequestLine,
    check_method,
    check_request_line,
    read_request_line,
)

TARGETS: dict[str, tuple[bytes, str, str, str | None]] = {
    "the root": (b"/", "/", "", None),
    "a path and a query": (b"/a/b?c=d&e", "/a/b", "c=d&e", None),
    "an empty query": (b"/a?", "/a", "", None),
    "a query with question marks": (b"/a??b?c", "/a", "?b?c", None),
    "a query with an address": (b"/a?b=http://c/", "/a", "b=http://c/", None),
    "a path may begin with two slashes (RFC 9112 3.2.1)": (
        b"//x/y",
        "//x/y",
        "",
        None,
    ),
    "dot segments are kept": (b"/a/../b/./c", "/a/../b/./c", "", None),
    "the path is decoded once": (b"/a%20b%2Fc%2525", "/a b/c%25", "", None),
    "UTF-8 is decoded as latin-1 (PEP 3333, String Types)": (
        b"/%C3%a4",
        "/\xc3\xa4",
        "",
        None,
    ),
    "an encoded question mark belongs to the path": (b"/a%3Fb?c", "/a?b", "c", None),
    "an encoded NUL is decoded": (b"/a%00", "/a\0", "", None),
    "a lone percent sign is kept": (b"/100%", "/100%", "", None),
    "an incomplete encoding is kept": (b"/%4", "/%4", "", None),
    "a percent sign before other characters is kept": (
        b"/%zz%41%u0041",
        "/%zzA%u0041",
        "",
        None,
    ),
    "a plus sign is kept": (b"/a+b?c+d", "/a+b", "c+d", None),
    "the query is not decoded": (b"/?a%20b%zz", "/", "a%20b%zz", None),
    "characters that RFC 3986 forbids but clients send": (
        b'/{a}|"b"<c>\\^`[d]',
        '/{a}|"b"<c>\\^`[d]',
        "",
        None,
    ),
    "absolute-form": (b"http://a.b:80/c?d", "/c", "d", "a.b:80"),
    "absolute-form in another case": (b"hTTpS://A/", "/", "", "A"),
    "absolute-form without a path": (b"http://a", "/", "", "a"),
    "absolute-form with only a query": (b"http://a?b/c", "/", "b/c", "a"),
    "absolute-form with an IPv6 address": (
        b"http://[::1]:8080/",
        "/",
        "",
        "[::1]:8080",
    ),
    "absolute-form with a URL in the path": (
        b"http://a//b/http://c/",
        "//b/http://c/",
        "",
        "a",
    ),
}


class TargetTests(SynchronousTestCase):
    """The forms of a request target."""

    def test_targets(self) -> None:
        """A target is split into path, query and host according to its form."""
        for sentence, (target, path, query, authority) in TARGETS.items():
            read = read_request_line(b"GET " + target + b" HTTP/1.1")
            expected = RequestLine("GET", target, path, query, "HTTP/1.1", authority)
            self.assertEqual(read, expected, sentence)

    def test_asterisk(self) -> None:
        """An asterisk is accepted for OPTIONS only (RFC 9112 3.2.4)."""
        read = read_request_line(b"OPTIONS * HTTP/1.0")
        expected = RequestLine("OPTIONS", b"*", "*", "", "HTTP/1.0", None)
        self.assertEqual(read, expected)
        with self.assertRaises(Malformed):
            read_request_line(b"POST * HTTP/1.1")

    def test_methods(self) -> None:
        """Every token is a method (RFC 9110 9.1), and is not changed."""
        tokens = [b"GET", b"get", b"BREW", b"VERSION-CONTROL", b"PROPFIND", b"connect"]
        tokens += [b"x" * METHOD_LIMIT_BYTES, b"CONNECTS", b"PRIX", b"PLAY", b"SOURCE"]
        tokens += [bytes((byte,)) for byte in b"!#$%&'*+-.^_`|~09azAZ"]
        for method in tokens:
            line = method + b" / HTTP/1.1"
            self.assertEqual(read_request_line(line).method, method.decode())
            self.assertTrue(check_request_line(line + b"\r\n", 1))

    def test_refused_methods(self) -> None:
        """CONNECT, PRI, other bytes and a very long method are refused."""
        for method, status in (
            (b"CONNECT", 501),
            (b"PRI", 505),
            (b"x" * (METHOD_LIMIT_BYTES + 1), 501),
            (b"", 400),
            (b"G(T", 400),
            (b"G\xc4T", 400),
        ):
            for target in (b"/", b"*", b"x:80"):
                for check in (
                    lambda method, target: check_method(method),
                    lambda method, target: check_request_line(
                        method + b" " + target + b" HTTP/1.1\r\n", 100
                    ),
                ):
                    with self.assertRaises(Malformed) as refused:
                        check(method, target)
                    self.assertEqual(refused.exception.status, status, method)
                with self.assertRaises(Malformed):
                    read_request_line(method + b" " + target + b" HTTP/1.1")


class AgreementTests(SynchronousTestCase):
    """`read_request_line` and `check_request_line` accept the same lines."""

    def _accepted(self, line: bytes) -> bool:
        """Return True if both accept a line, False if neither; else fail."""
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
        """Both agree on every byte inserted or replaced anywhere in a valid line."""
        accepted = 0
        for line in (
            b"GET /a HTTP/1.1",
            b"M-SEARCH /?b HTTP/1.0",
            b"OPTIONS * HTTP/1.1",
            b"GET http://a:1/b HTTP/1.1",
        ):
            for at in range(len(line)):
                for value in range(256):
                    byte = bytes((value,))
                    accepted += self._accepted(line[:at] + byte + line[at:])
                    accepted += self._accepted(line[:at] + byte + line[at + 1 :])
        self.assertGreater(accepted, 1000)

    def test_every_prefix(self) -> None:
        """Every prefix of a valid line is incomplete, neither refused nor complete."""
        for target, *_ in TARGETS.values():
            line = b"GET " + target + b" HTTP/1.1\r\n"
            for end in range(len(line)):
                self.assertFalse(check_request_line(line[:end], len(target)))
            self.assertTrue(check_request_line(line, len(target)))
            self.assertTrue(check_request_line(line + b"\n\0more", len(target)))
