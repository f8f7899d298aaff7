"""What `txgreenwsgi._http.known_lines` promises: speed that changes nothing.

That it changes nothing is shown by `test_parser.StreamTests.test_any_split`.
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
    """What is learned, and what is not."""

    def setUp(self) -> None:
        """Begin with nothing known."""
        self.lines = KnownLines(limit=10)

    def _feed(self, stream: bytes, status: int = 0) -> RequestHead | None:
        found = RequestParser(lines=self.lines).feed(stream)
        self.assertEqual(outcome(found), status)
        first = found[0]
        return first if isinstance(first, RequestHead) else None

    def test_new(self) -> None:
        """Nothing is known at first."""
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(0, 0, 0))

    def test_learned(self) -> None:
        """A head that came before is not judged again, nor one of the same lines."""
        for _ in range(3):
            self._feed(BROWSER % (b"/", b""))
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(1, 3, 1))
        self._feed(b"GET / HTTP/1.1\r\nAccept: */*\r\nHost: x\r\n\r\n")
        self.assertEqual(self.lines.statistics().validated_heads, 1)
        self._feed(BROWSER % (b"/new", b""))
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(2, 3, 2))
        self._feed(BROWSER % (b"/new", b"X-New: 1\r\n"))
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(2, 4, 3))

    def test_second_opinion(self) -> None:
        """A head that llhttp refuses is refused, though we see no fault in it."""

        def judge(head: bytes) -> None:
            heads.append(head)
            raise Malformed(400, "llhttp knows better")

        heads: list[bytes] = []
        self.patch(known_lines, "validate_head", judge)
        head = BROWSER % (b"/", b"")
        for _ in range(2):
            self._feed(head, 400)
        self.assertEqual(heads, [head] * 2)
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(0, 0, 2))

    def test_known_lines_are_combined_anew(self) -> None:
        """Lines that were good apart may be bad together."""
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

    def test_refused_heads_teach_nothing(self) -> None:
        """No line of a refused head is learned, not even with the next good head."""
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

    def test_secrets_are_not_kept(self) -> None:
        """What lets a person in is forgotten with the request."""
        secret = b"Cookie: a\r\nAuthorization: b\r\nproxy-authorization: c\r\n"
        for _ in range(2):
            head = self._feed(BROWSER % (b"/", secret))
            assert head is not None
            self.assertEqual(head.variables["HTTP_COOKIE"], "a")
            self.assertEqual(head.variables["HTTP_AUTHORIZATION"], "b")
            self.assertEqual(head.variables["HTTP_PROXY_AUTHORIZATION"], "c")
        self.assertEqual(self.lines.statistics(), KnownLinesStatistics(1, 3, 1))

    def test_bad_secrets_are_refused(self) -> None:
        """They are read as strictly as any other field."""
        for _ in range(2):
            self._feed(BROWSER % (b"/", b""))
            self._feed(BROWSER % (b"/", b"Cookie: a\0\r\n"), 400)

    def test_another_query(self) -> None:
        """Of a known path any query is read as it would be anew, and not judged."""
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

    def test_bad_queries_are_refused(self) -> None:
        """What is no request line is none behind a known path either."""
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

    def test_paths_are_forgotten(self) -> None:
        """Two generations of paths are kept, and none of a head that was refused."""
        for i in range(100):
            self._feed(BROWSER % (b"/%d?a" % i, b""))
        judged = self.lines.statistics().validated_heads
        self._feed(BROWSER % (b"/99?b", b""))
        self.assertEqual(self.lines.statistics().validated_heads, judged)
        self._feed(BROWSER % (b"/0?b", b""))
        self.assertEqual(self.lines.statistics().validated_heads, judged + 1)
        self._feed(BROWSER % (b"/bad?a", b"Host: y\r\n"), 400)
        self._feed(BROWSER % (b"/bad?b", b""))
        self.assertEqual(self.lines.statistics().validated_heads, judged + 2)

    def test_long_lines_are_not_kept(self) -> None:
        """A line of more than 256 bytes is not worth its memory."""
        for length, kept in ((256, 4), (257, 3)):
            self.lines = KnownLines()
            self._feed(BROWSER % (b"/", b"A: " + b"b" * (length - 3) + b"\r\n"))
            self.assertEqual(self.lines.statistics().field_lines, kept)
        self._feed(BROWSER % (b"/" + b"a" * 300, b""))
        self.assertEqual(self.lines.statistics().request_lines, 1)

    def test_bounded(self) -> None:
        """However many different lines come, two generations are kept."""
        for i in range(1000):
            self._feed(BROWSER % (b"/%d" % i, b"X-Id: %d\r\n" % i))
            known = self.lines.statistics()
            self.assertIn(known.request_lines, range(min(i, 10), 21))
            self.assertIn(known.field_lines, range(min(i, 10), 21))

    def test_what_comes_all_the_time_stays(self) -> None:
        """Lines that differ in each request do not drive out those that do not."""
        often = BROWSER % (b"/", b"")
        self._feed(often)
        for i in range(500):
            self._feed(BROWSER % (b"/%d" % i, b"X-Id: %d\r\n" % i))
            judged = self.lines.statistics().validated_heads
            self._feed(often)
            self.assertEqual(self.lines.statistics().validated_heads, judged)

    def test_forgotten(self) -> None:
        """Lines that no longer come are forgotten, and learned again."""
        once = BROWSER % (b"/", b"X-Once: 1\r\n")
        self._feed(once)
        for i in range(20):
            self._feed(BROWSER % (b"/", b"X-Id: %d\r\n" % i))
        judged = self.lines.statistics().validated_heads
        self._feed(once)
        self.assertEqual(self.lines.statistics().validated_heads, judged + 1)

    def test_shared(self) -> None:
        """What one connection taught serves all others that share it."""
        stream = BROWSER % (b"/", b"")
        first, second = (RequestParser(lines=self.lines) for _ in range(2))
        self.assertEqual(first.feed(stream), second.feed(stream))
        self.assertEqual(second.feed(stream)[1:], [END])
        self.assertEqual(self.lines.statistics().validated_heads, 1)
