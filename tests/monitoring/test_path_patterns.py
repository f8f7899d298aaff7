"""Patterns of paths."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.monitoring.path_patterns import PathPatterns

from .records import record


class PathPatternTests(SynchronousTestCase):
    """Requests that match, and others."""

    def test_match(self) -> None:
        """A pattern matches the whole path, decoded and without the query."""
        for pattern, matching, others in (
            ("/health", ["/health", "/health?x=1", "/%68ealth"], ["/health/", "/x"]),
            ("/-/*", ["/-/live", "/-/", "/-/a/b\n"], ["/-", "/"]),
            ("/a*z", ["/az", "/a/b/z"], ["/a", "/azy"]),
            ("/", ["/", "/?q", "http://example.net", "http://a/?q"], ["*", ""]),
            ("/a", ["https://example.net:80/a?b"], ["https://example.net/a/a"]),
            ("/caf\xe9", ["/caf%C3%A9", "/caf\xc3\xa9"], ["/caf%E9"]),
            ("/a.b", ["/a.b"], ["/axb"]),
        ):
            patterns = PathPatterns([pattern])
            for target in matching:
                self.assertTrue(patterns.match(record(target=target)), target)
            for target in others:
                self.assertFalse(patterns.match(record(target=target)), target)

    def test_several(self) -> None:
        """One of several patterns is enough; without patterns nothing matches."""
        patterns = PathPatterns(["/a", "/b/*"])
        self.assertTrue(patterns)
        self.assertTrue(patterns.match(record(target="/b/c")))
        self.assertFalse(patterns.match(record(target="/c")))
        self.assertFalse(PathPatterns([]))

    def test_invalid(self) -> None:
        """A pattern that is no path is an error."""
        for pattern in ("health", "", "*", "GET /a"):
            error = self.assertRaises(ValueError, PathPatterns, [pattern])
            self.assertEqual(
                str(error),
                f"{pattern!r} is not the pattern of a path: give a path such as "
                "/health or /internal/*",
            )
