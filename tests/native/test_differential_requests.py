"""Request heads and whole connections, compared in both modes.

Hypothesis generates valid and invalid streams and the positions at which they are cut.
Each server sees the same pieces; all bytes, the end of the connection, the environ, the
access log and the logged errors must be equal. The runs are deterministic by default;
TXGREENWSGI_FUZZ multiplies their number and randomizes them.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.http.streams import ALPHABET, GOOD, LINES, bytewise, mutated, split

from .pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable

FACTOR = float(os.environ.get("TXGREENWSGI_FUZZ", "0"))
RUNS = settings(
    max_examples=int(300 * (FACTOR or 1)),
    deadline=None,
    database=None,
    derandomize=not FACTOR,
    suppress_health_check=list(HealthCheck),
)
#: A chunked body is not awaited, which would depend on time.
STREAM = "--chunked=stream"
CLOSE = b"GET /environ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

_PATHS = (
    *("/environ", "/hello", "/body", "/lines", "/some", "/pieces", "/unread", "/sleep"),
    *("/fail", "/chunks", "/a%20b%2Fc", "/%e4%80/x;y", "//double", "/a/../b", "*", ""),
    *("http://other.example:81/p", "/\xe4", "/tab\t", "/sp ace", "/" + "p" * 300),
)
_QUERIES = ("", "", "?", "?a=1", "?a=%20&b=\xe4", "?" + "q" * 400, "?a#b", "#f")
_METHODS = ("GET", "GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "get", "G@T", "FOO")
_VERSIONS = ("HTTP/1.1",) * 5 + ("HTTP/1.0", "HTTP/2.0", "http/1.1", "HTTP/1.2", "")
_FIELDS = (
    *("Accept: */*", "Accept:*/*", "accept: a", "ACCEPT: b", "Accept:  c \t", "A:"),
    *("Cookie: a=1", "cookie: b=2", "Cookie: " + "c" * 300, "Authorization: Basic x"),
    *("User-Agent: curl/8.5.0", "Referer: http://x/", "X_A: 1", "X-A: 1", "Proxy: p"),
    *("Connection: keep-alive", "Connection: close", "Connection: Upgrade, close"),
    *("Upgrade: websocket", "Content-Type: text/plain", "Expect: 100-continue"),
    *("Expect: more", "Content-Length: 3", "Content-Length: 0", "Content-Length: +3"),
    *("Content-Length: 3, 3", "Content-Length: 99999999999999999999", "TE: trailers"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Host: y"),
    *(
        "X-Bad: a\x00b",
        "X-Bad: a\x7fb",
        "X-Obs: \xe4\xff",
        " folded",
        "No colon",
        ": x",
    ),
    *("Sp ace: 1", "Tail : 1", "X-Long: " + "x" * 5000, "Forwarded: for=1.2.3.4"),
    *("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Range: bytes=0-1"),
)
_HOSTS = (
    *("Host: example.com", "Host: x", "host: x:80", "Host:", "Host: [::1]:80"),
    *("Host: a b", "Host: x:99999", "Host: \xe4"),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Generate a request head, mostly valid."""
    line = [draw(st.sampled_from(_METHODS)), "", draw(st.sampled_from(_VERSIONS))]
    line[1] = draw(st.sampled_from(_PATHS)) + draw(st.sampled_from(_QUERIES))
    fields = draw(st.lists(st.sampled_from(_FIELDS), max_size=6))
    hosts = draw(st.lists(st.sampled_from(_HOSTS), min_size=0, max_size=2))
    hosts = hosts or ["Host: example.com"]
    if draw(st.integers(0, 9)):
        hosts = ["Host: example.com"]
    end: str = draw(st.sampled_from(("\r\n",) * 9 + ("\n",)))
    return end.join([" ".join(line), *hosts, *fields, "", ""]).encode("latin-1")


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Generate the pieces of a stream of up to four requests."""
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.integers(0, 5))
        if kind == 0:
            parts.append(draw(heads()))
        elif kind == 1:
            parts.append(draw(st.sampled_from(sorted(GOOD.values()))))
        else:
            parts.append(draw(with_body()))
    stream = b"".join(parts)
    if draw(st.booleans()):
        stream += CLOSE
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(st.sampled_from(ALPHABET)) + stream[at:]
    if draw(st.integers(0, 9)) == 0:
        stream = stream[: draw(st.integers(0, len(stream)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    ends = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    return [piece for begin, end in ends if (piece := stream[begin:end])]


@st.composite
def with_body(draw: st.DrawFn) -> bytes:
    """Generate a request whose body, if there is one, fits its head."""
    path = draw(st.sampled_from(_PATHS[:10])) + draw(st.sampled_from(_QUERIES[:4]))
    method = draw(st.sampled_from(("GET", "POST", "POST", "HEAD", "PUT")))
    version = draw(st.sampled_from(("1.1", "1.1", "1.1", "1.0")))
    fields = draw(st.lists(st.sampled_from(_FIELDS[:19]), max_size=4))
    lines = [f"{method} {path} HTTP/{version}", "Host: example.com", *fields]
    body = draw(
        st.binary(max_size=40)
        | st.sampled_from((b"", b"\r\n\r\n", b"line\n" * 9, bytes(3000), bytes(70_000)))
    )
    form = draw(st.sampled_from(("length", "length", "chunked", "none")))
    if form == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        body += draw(st.sampled_from((b"0\r\n\r\n", b"0;a=b\r\nX: y\r\n\r\n")))
    elif form == "length":
        lines.append(f"Content-Length: {len(body)}")
    else:
        body = b""
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class RequestTests(SynchronousTestCase):
    """The same bytes to a compiled server and to one in pure Python."""

    def compare(
        self, run: Callable[[Pair], object], *options: str, logged: bool = False
    ) -> None:
        """Run a test with a new pair, then compare the logs."""
        pair = Pair(self, options, logged=logged)
        run(pair)
        pair.finish()

    def test_good(self) -> None:
        """Valid requests of every kind: whole, byte by byte, and one after another."""

        def run(pair: Pair) -> None:
            for stream in GOOD.values():
                pair.check([stream])
                pair.check([stream + stream + CLOSE])
                pair.check(bytewise(stream + CLOSE))
                # The second time, every line is known.
                pair.check([stream, stream, CLOSE])

        self.compare(run)
        self.compare(run, logged=True)

    def test_heads(self) -> None:
        """Heads with every kind of defect, each on a connection of its own."""

        @RUNS
        @given(head=heads(), leave=st.booleans())
        def run(pair: Pair, head: bytes, leave: bool) -> None:
            pair.check([head], leave=leave)

        self.compare(run, STREAM)

    def test_connections(self) -> None:
        """Streams of requests with bodies, cut anywhere, corrupted or truncated."""

        @RUNS
        @example(pieces=[b"GET / HTTP/1.1\r\nHost: x\r\n\r", b"\n"], leave=True)
        @given(pieces=streams(), leave=st.booleans())
        def run(pair: Pair, pieces: list[bytes], leave: bool) -> None:
            pair.check(pieces, leave=leave)

        self.compare(run, STREAM)

    def test_mutations(self) -> None:
        """Random mutations of valid streams, cut at random."""
        chance = random.Random(None if FACTOR else 11)

        def run(pair: Pair) -> None:
            for _ in range(int(400 * (FACTOR or 1))):
                stream = mutated(chance)
                pair.check(split(stream, chance), leave=chance.random() < 0.5)

        self.compare(run, STREAM, logged=True)

    def test_limits(self) -> None:
        """The limits of the head and of the body, hit from below and from above."""

        def run(pair: Pair) -> None:
            for length in (*range(60, 90), 200, 300, 400, 1000):
                target = b"/" + b"t" * (length - 1)
                head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"
                pair.check([head])
                pair.check([head[: length // 2], head[length // 2 :]])
                field = b"X: " + b"f" * length
                pair.check([b"GET / HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n"])
            for count in range(12):
                fields = b"".join(b"X-%d: 1\r\n" % number for number in range(count))
                pair.check([b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n"])
            for length in range(15, 25):
                head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                pair.check([head % length + bytes(length), CLOSE])
                pair.check([head % length, bytes(length) + CLOSE])

        self.compare(
            run,
            *("--max-header-size=300", "--max-headers=8", "--max-target=70"),
            "--max-body=20",
            logged=True,
        )

    def test_lines(self) -> None:
        """One odd line at each position of a head whose other lines are known."""
        known = [b"GET /hello HTTP/1.1", b"Host: x", b"Accept: */*", b"Cookie: a=1"]

        def run(pair: Pair) -> None:
            pair.check([b"\r\n".join([*known, b"", b""])])
            for line in LINES:
                for at in range(1, len(known) + 1):
                    lines = [*known[:at], line, *known[at:], b"", b""]
                    pair.check([b"\r\n".join(lines), b"abc" + CLOSE])

        self.compare(run)

    def test_lines_of_another_kind(self) -> None:
        """A known line is known in its own place only."""
        request, field = b"GET /hello HTTP/1.1", b"X-Known: 1"
        query = b"GET /hello?a=1 HTTP/1.1"

        def run(pair: Pair) -> None:
            for _ in range(2):
                for first in (request, query):
                    pair.check([b"\r\n".join([first, b"Host: x", field, b"", b""])])
            for lines in (
                [request, b"Host: x", request],
                [request, request, b"Host: x"],
                [request, b"Host: x", query],
                [request, b"Host: x", b"GET /hello"],
                [field, b"Host: x"],
                [b"Host: x", b"Host: x"],
                [field + b"?a=1 HTTP/1.1", b"Host: x"],
                [b"GET /hello", b"Host: x"],
            ):
                pair.check([b"\r\n".join([*lines, b"", b""])])
                pair.check([b"\r\n".join([request, b"Host: x", field, b"", b""])])

        self.compare(run)
