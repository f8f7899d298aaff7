"""Where a response's body ends (RFC 9112 section 6.3), as a table."""

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

#: (method, version, code, length) and the framing.
CASES: dict[str, tuple[tuple[str, str, int, int | None], str]] = {
    "a known length is told": (("GET", "HTTP/1.1", 200, 5), LENGTH),
    "a length of zero too": (("GET", "HTTP/1.1", 200, 0), LENGTH),
    "an unknown length goes in chunks": (("GET", "HTTP/1.1", 200, None), CHUNKED),
    "HTTP/1.0 knows lengths": (("GET", "HTTP/1.0", 200, 5), LENGTH),
    "HTTP/1.0 knows no chunks (section 7.1)": (("GET", "HTTP/1.0", 200, None), CLOSE),
    "HEAD has no body (rule 1)": (("HEAD", "HTTP/1.1", 200, None), NONE),
    "HEAD has none of a known length": (("HEAD", "HTTP/1.1", 200, 5), NONE),
    "HEAD has none in HTTP/1.0": (("HEAD", "HTTP/1.0", 200, None), NONE),
    "204 has no body (rule 1)": (("GET", "HTTP/1.1", 204, None), NONE),
    "304 has no body (rule 1)": (("GET", "HTTP/1.1", 304, 5), NONE),
    "304 has none in HTTP/1.0": (("GET", "HTTP/1.0", 304, None), NONE),
    "interim responses have no body (rule 1)": (("POST", "HTTP/1.1", 100, None), NONE),
    "errors have bodies": (("POST", "HTTP/1.1", 500, None), CHUNKED),
    "205 may have one": (("POST", "HTTP/1.1", 205, 0), LENGTH),
}


class FramingTests(SynchronousTestCase):
    """`choose_framing`."""

    def test_cases(self) -> None:
        """Each kind of response ends in the one way that its client understands."""
        for name, (given, framing) in CASES.items():
            self.assertEqual(choose_framing(*given), framing, name)

    def test_bodiless(self) -> None:
        """Whether there is a body depends on the method and the status alone."""
        for method, version, code, length in (given for given, _ in CASES.values()):
            framing = choose_framing(method, version, code, length)
            self.assertEqual(has_no_body(method, code), framing == NONE)
