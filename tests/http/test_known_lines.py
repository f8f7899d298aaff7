"""Tests of `txgreenwsgi._http.known_lines`: what the cache keeps and skips.

`test_parser.StreamTests.test_any_split` shows that the cache does not change results.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http import known_lines
from txgreenwsgi._http.head import END, Malformed, RequestHead
from txgreenwsgi._http.known_lines import KnownLines, KnownLinesStatistics
from txgreenwsgi._http.parser import RequestParser

from .streams import outcome

BROWSER = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUser-Agent: a browser\r\nAccept: */*\r\n%b\r\n"
)


class KnownLinesTests(SynchronousTestCase):
    """The contents of the cache."""

    def setUp(self) -> None:
        """Create an empty cache."""
        self.lines = KnownLines(limit=10)

    def _feed(self, stream: bytes, status: int = 0) -> RequestHead | None:
        found = RequestParser(lines=self.lines).feed(stream)
        self.assertEqual(outcome(found), status)
        first = found[0]
        return first if isinstance(first, RequestHead) else None

    def test_new(self) -> None:
        """A new cache is empty."""
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(0, 0, 0))

    def test_cached(self) -> None:
        """A head whose lines are all cached is not validated by llhttp."""
        for _ in range(3):
            self._feed(BROWSER % (b"/", b""))
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(1, 3, 1))
        self._feed(b"GET / HTTP/1.1\r\nAccept: */*\r\nHost: x\r\n\r\n")
        self.assertEqual(self.lines.statistics().validated_heads, 1)
        self._feed(BROWSER % (b"/new", b""))
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(2, 3, 2))
        self._feed(BROWSER % (b"/new", b"X-New: 1\r\n"))
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(2, 4, 3))

    def test_llhttp_refuses(self) -> None:
        """A head that llhttp refuses is refused, even if our own parser accepts it."""

        def validate(head: bytes) -> None:
            heads.append(head)
            raise Malformed(400, "refused by llhttp")

        heads: list[bytes] = []
        self.patch(known_lines, "validate_head", validate)
        head = BROWSER % (b"/", b"")
        for _ in range(2):
            self._feed(head, 400)
        self.assertEqual(heads, [head] * 2)
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(0, 0, 2))

    def test_invalid_combinations(self) -> None:
        """Lines that are valid separately are refused if invalid in combination."""
        self._feed(b"GET / HTTP/1.0\r\n\r\n")
        self._feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self._feed(b"GET / HTTP/1.1\r\nHost: y\r\nContent-Length: 3\r\n\r\nabc")
        self._feed(
            b"GET / HTTP/1.1\r\nHost: y\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        known = self.lines.statistics()
        for fields in (
            b"",
            b"Host: x\r\nHost: y\r\n",
            b"Host: x\r\nHost: x\r\n",
            b"Host: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
            b"Host: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            b"Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ):
            self._feed(b"GET / HTTP/1.1\r\n" + fields + b"\r\n", 400)
        self._feed(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400)
        self.assertEqual(self.lines.statistics(), known)

    def test_refused_heads_are_not_cached(self) -> None:
        """No line of a refused head is cached, not even with the next valid head."""
        for bad, status in (
            (b"A : b\r\n", 400),
            (b"Expect: more\r\n", 417),
            (b"Host: x\r\n", 400),
            (b"\0: a\r\n", 400),
        ):
            self._feed(BROWSER % (b"/bad", b"X-Bad: 1\r\n" + bad), status)
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(0, 0, 0))
        self._feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(1, 1, 1))

    def test_credentials_are_not_cached(self) -> None:
        """Cookie, Authorization and Proxy-Authorization are never cached."""
        secret = b"Cookie: a\r\nAuthorization: b\r\nproxy-authorization: c\r\n"
        for _ in range(2):
            head = self._feed(BROWSER % (b"/", secret))
            assert head is not None
            self.assertEqual(head.variables["HTTP_COOKIE"], "a")
            self.assertEqual(head.variables["HTTP_AUTHORIZATION"], "b")
            self.assertEqual(head.variables["HTTP_PROXY_AUTHORIZATION"], "c")
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(1, 3, 1))

    def test_malformed_cookies_are_refused(self) -> None:
        """Cookie lines are validated as strictly as all others."""
        for _ in range(2):
            self._feed(BROWSER % (b"/", b""))
            self._feed(BROWSER % (b"/", b"Cookie: a\0\r\n"), 400)

    def test_another_query(self) -> None:
        """A known path with another query is parsed the same, without llhttp."""
        self._feed(BROWSER % (b"/a%20b?first", b""))
        for query in (b"", b"a=1", b"?", b"a?b", b"%ff%zz", b'"<>|{}', b"q" * 8000):
            for version in (b"HTTP/1.1", b"HTTP/1.0"):
                request = BROWSER.replace(b"HTTP/1.1", version)
                request %= (b"/a%20b?" + query, b"")
                head = self._feed(request)
                anew = RequestParser(lines=KnownLines()).feed(request)[0]
                self.assertEqual(head, anew)
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(1, 3, 1))
        self._feed(BROWSER.replace(b"GET", b"PUT") % (b"/a%20b?a", b""))
        self._feed(BROWSER % (b"/a%20b", b""))
        self._feed(BROWSER % (b"http://x/a%20b?a", b""))
        self._feed(BROWSER % (b"http://x/a%20b?b", b""))
        self.assertEqual(self.lines.statistics().validated_heads, 5)

    def test_malformed_queries_are_refused(self) -> None:
        """A malformed request line is refused even if its path is known."""
        self._feed(BROWSER % (b"/?first", b""))
        for target, status in (
            (b"/?a b", 400),
            (b"/?a#b", 400),
            (b"/?\x7f", 400),
            (b"/?\xe9", 400),
            (b"/?\t", 400),
            (b"/?a HTTP/1.1 ", 400),
            (b"/?" + b"a" * 8191, 414),
        ):
            self._feed(BROWSER % (target, b""), status)
        for line in (b"GET /?a", b"GET /?a ", b"GET /?a HTTP/2.0", b"GET /? HTTP/1.10"):
            found = RequestParser(lines=self.lines).feed(line + b"\r\nHost: x\r\n\r\n")
            self.assertIn(outcome(found), (400, 505))

    def test_paths_are_evicted(self) -> None:
        """Two generations of paths are cached, and none of a refused head."""
        for i in range(100):
            self._feed(BROWSER % (b"/%d?a" % i, b""))
        validated = self.lines.statistics().validated_heads
        self._feed(BROWSER % (b"/99?b", b""))
        self.assertEqual(self.lines.statistics().validated_heads, validated)
        self._feed(BROWSER % (b"/0?b", b""))
        self.assertEqual(self.lines.statistics().validated_heads, validated + 1)
        self._feed(BROWSER % (b"/bad?a", b"Host: y\r\n"), 400)
        self._feed(BROWSER % (b"/bad?b", b""))
        self.assertEqual(self.lines.statistics().validated_heads, validated + 2)

    def test_long_lines_are_not_cached(self) -> None:
        """Lines of more than 256 bytes are not cached."""
        for length, cached in ((256, 4), (257, 3)):
            self.lines = KnownLines()
            self._feed(BROWSER % (b"/", b"A: " + b"b" * (length - 3) + b"\r\n"))
            self.assertEqual(self.lines.statistics().field_lines, cached)
        self._feed(BROWSER % (b"/" + b"a" * 300, b""))
        self.assertEqual(self.lines.statistics().request_lines, 1)

    def test_bounded(self) -> None:
        """The cache never exceeds two generations."""
        for i in range(1000):
            self._feed(BROWSER % (b"/%d" % i, b"X-Id: %d\r\n" % i))
            known = self.lines.statistics()
            self.assertIn(known.request_lines, range(min(i, 10), 21))
            self.assertIn(known.field_lines, range(min(i, 10), 21))

    def test_frequent_lines_stay(self) -> None:
        """Lines that differ in each request do not evict frequent ones."""
        frequent = BROWSER % (b"/", b"")
        self._feed(frequent)
        for i in range(500):
            self._feed(BROWSER % (b"/%d" % i, b"X-Id: %d\r\n" % i))
            validated = self.lines.statistics().validated_heads
            self._feed(frequent)
            self.assertEqual(self.lines.statistics().validated_heads, validated)

    def test_evicted(self) -> None:
        """Lines that are no longer used are evicted, and cached again later."""
        once = BROWSER % (b"/", b"X-Once: 1\r\n")
        self._feed(once)
        for i in range(20):
            self._feed(BROWSER % (b"/", b"X-Id: %d\r\n" % i))
        validated = self.lines.statistics().validated_heads
        self._feed(once)
        self.assertEqual(self.lines.statistics().validated_heads, validated + 1)

    def test_shared(self) -> None:
        """Connections that share a cache benefit from each other's lines."""
        stream = BROWSER % (b"/", b"")
        first, second = (RequestParser(lines=self.lines) for _ in range(2))
        self.assertEqual(first.feed(stream), second.feed(stream))
        self.assertEqual(second.feed(stream)[1:], [END])
        self.assertEqual(self.lines.statistics().validated_heads, 1)
