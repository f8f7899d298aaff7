"""Tests of response framing (RFC 9112 section 6.3): a table of cases."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.framing import (
    CHUNKED,
    CLOSE,
    LENGTH,
    NONE,
    choose_framing,
    has_no_body,
)

#: (method, version, code, length) and the expected framing.
CASES: dict[str, tuple[tuple[str, str, int, int | None], str]] = {
    "a known length is declared": (("GET", "HTTP/1.1", 200, 5), LENGTH),
    "a length of zero is declared": (("GET", "HTTP/1.1", 200, 0), LENGTH),
    "a body of unknown length is chunked": (("GET", "HTTP/1.1", 200, None), CHUNKED),
    "HTTP/1.0 supports Content-Length": (("GET", "HTTP/1.0", 200, 5), LENGTH),
    "HTTP/1.0 does not support chunks (section 7.1)": (
        ("GET", "HTTP/1.0", 200, None),
        CLOSE,
    ),
    "HEAD has no body (rule 1)": (("HEAD", "HTTP/1.1", 200, None), NONE),
    "HEAD has no body even with a known length": (("HEAD", "HTTP/1.1", 200, 5), NONE),
    "HEAD has no body in HTTP/1.0": (("HEAD", "HTTP/1.0", 200, None), NONE),
    "204 has no body (rule 1)": (("GET", "HTTP/1.1", 204, None), NONE),
    "304 has no body (rule 1)": (("GET", "HTTP/1.1", 304, 5), NONE),
    "304 has no body in HTTP/1.0": (("GET", "HTTP/1.0", 304, None), NONE),
    "interim responses have no body (rule 1)": (("POST", "HTTP/1.1", 100, None), NONE),
    "errors have bodies": (("POST", "HTTP/1.1", 500, None), CHUNKED),
    "205 may have a length": (("POST", "HTTP/1.1", 205, 0), LENGTH),
}


class FramingTests(SynchronousTestCase):
    """`choose_framing`."""

    def test_cases(self) -> None:
        """The framing depends on method, version, status and length as tabulated."""
        for name, (given, framing) in CASES.items():
            self.assertEqual(choose_framing(*given), framing, name)

    def test_bodiless(self) -> None:
        """has_no_body() agrees with choose_framing() for every version and length."""
        for method, version, code, length in (given for given, _ in CASES.values()):
            framing = choose_framing(method, version, code, length)
            self.assertEqual(has_no_body(method, code), framing == NONE)
