"""Frames by section of RFC 9113: valid, stream errors and connection errors.

Each row sends frames on a new connection and names the expected reaction: an error code
of the connection, of a stream, or a status. A stream error may end the connection
instead (RFC 9113 section 5.4.1); the table says which one this server chooses.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

from .frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    GREATEST_WINDOW,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    RawClient,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Environ = dict[str, Any]
    Start = Callable[..., Any]
    Build = Callable[[RawClient], bytes]

# RFC 9113 section 7.
NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, _, STREAM_CLOSED, FRAME_SIZE = range(7)
REFUSED, _, COMPRESSION = range(7, 10)

WHOLE = END_STREAM | END_HEADERS


def upload(client: RawClient, *fields: tuple[str, str], stream: int = 1) -> bytes:
    """Return the head of a request with a body."""
    return client.upload(stream, list(fields))


def pseudo(client: RawClient, *fields: tuple[str, str]) -> bytes:
    """Return a request with exactly these fields."""
    return frame(HEADERS, WHOLE, 1, client.block(fields))


#: The header block of GET / without the dynamic table.
HEAD = b"\x82\x86\x84\x01\x04test"

METHOD, SCHEME = (":method", "GET"), (":scheme", "http")
PATH, AUTHORITY = (":path", "/"), (":authority", "test")


def setting(code: int, value: int) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, pack(">HL", code, value))


#: Section, description, frames, error code: those that end the connection.
CONNECTION_ERRORS: list[tuple[str, str, Build, int]] = [
    ("4.1", "reserved bit is ignored, wrong stream is not", lambda c: frame(
        PING, 0, 1, bytes(8)), PROTOCOL),
    ("4.2", "a DATA frame above SETTINGS_MAX_FRAME_SIZE", lambda c: upload(c) + frame(
        DATA, 0, 1, bytes(16385)), FRAME_SIZE),
    ("4.2", "a HEADERS frame above it", lambda c: frame(
        HEADERS, WHOLE, 1, bytes(16385)), FRAME_SIZE),
    ("4.2", "its header alone", lambda c: frame(
        HEADERS, WHOLE, 1, bytes(70_000))[:9], FRAME_SIZE),
    ("4.3", "an invalid header block", lambda c: frame(
        HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff"), COMPRESSION),
    ("4.3", "an index beyond the table", lambda c: frame(
        HEADERS, WHOLE, 1, b"\xbf"), COMPRESSION),
    ("4.3", "a truncated literal", lambda c: frame(
        HEADERS, WHOLE, 1, b"\x82\x00\x05a"), COMPRESSION),
    ("4.3", "a table size update behind a field", lambda c: frame(
        HEADERS, WHOLE, 1, b"\x82\x20"), COMPRESSION),
    ("4.3.1", "a table larger than SETTINGS_HEADER_TABLE_SIZE", lambda c: frame(
        HEADERS, WHOLE, 1, b"\x3f\xff\x7f"), COMPRESSION),
    ("4.3", "another frame inside of a header block", lambda c: frame(
        HEADERS, END_STREAM, 1, c.head()) + frame(PING, 0, 0, bytes(8)), PROTOCOL),
    ("4.3", "CONTINUATION of another stream", lambda c: frame(
        HEADERS, END_STREAM, 1, c.head()) + frame(CONTINUATION, 4, 3), PROTOCOL),
    ("4.3", "an unknown frame inside of a header block", lambda c: frame(
        HEADERS, END_STREAM, 1, c.head()) + frame(0x42, 0, 1), PROTOCOL),
    ("5.1", "DATA on an idle stream", lambda c: frame(DATA, 0, 1, b"x"), PROTOCOL),
    ("5.1", "RST_STREAM on an idle stream", lambda c: frame(
        RST_STREAM, 0, 1, pack(">L", CANCEL)), PROTOCOL),
    ("5.1", "WINDOW_UPDATE on an idle stream", lambda c: frame(
        WINDOW_UPDATE, 0, 1, pack(">L", 1)), PROTOCOL),
    ("5.1", "CONTINUATION on an idle stream", lambda c: frame(
        CONTINUATION, 4, 1), PROTOCOL),
    ("5.1.1", "an even stream", lambda c: c.request(2), PROTOCOL),
    ("5.1.1", "a stream below an earlier one", lambda c: c.request(5)
        + c.request(3), PROTOCOL),
    ("5.1", "HEADERS of a stream that has ended", lambda c: c.request(1)
        + c.request(1), PROTOCOL),
    ("5.3.1", "a stream that depends on itself", lambda c: frame(
        HEADERS, WHOLE | PRIORITY_FLAG, 1, pack(">LB", 1, 1) + c.head()), PROTOCOL),
    ("6.1", "DATA on stream 0", lambda c: frame(DATA, 0, 0, b"x"), PROTOCOL),
    ("6.1", "padding as long as the frame", lambda c: upload(c) + frame(
        DATA, PADDED, 1, b"\4xxx"), PROTOCOL),
    ("6.2", "HEADERS on stream 0", lambda c: frame(
        HEADERS, WHOLE, 0, c.head()), PROTOCOL),
    ("6.2", "padding longer than the head", lambda c: frame(
        HEADERS, WHOLE | PADDED, 1, b"\xff" + c.head()), PROTOCOL),
    ("6.3", "PRIORITY on stream 0", lambda c: frame(
        PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    ("6.3", "PRIORITY of four bytes", lambda c: frame(
        PRIORITY, 0, 1, bytes(4)), FRAME_SIZE),
    ("6.4", "RST_STREAM on stream 0", lambda c: frame(
        RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
    ("6.4", "RST_STREAM of three bytes", lambda c: c.request(1, "/sleep") + frame(
        RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE),
    ("6.5", "SETTINGS with ACK and a payload", lambda c: frame(
        SETTINGS, ACK, 0, bytes(6)), PROTOCOL),
    ("6.5", "SETTINGS on a stream", lambda c: frame(SETTINGS, 0, 1), PROTOCOL),
    ("6.5", "SETTINGS of five bytes", lambda c: frame(
        SETTINGS, 0, 0, bytes(5)), FRAME_SIZE),
    ("6.5.2", "ENABLE_PUSH of 2", lambda c: setting(2, 2), PROTOCOL),
    ("6.5.2", "INITIAL_WINDOW_SIZE of 2**31", lambda c: setting(
        4, 2**31), FLOW_CONTROL),
    ("6.5.2", "MAX_FRAME_SIZE of 16383", lambda c: setting(5, 16383), PROTOCOL),
    ("6.5.2", "MAX_FRAME_SIZE of 2**24", lambda c: setting(5, 2**24), PROTOCOL),
    ("6.6", "PUSH_PROMISE of a client", lambda c: c.request(1, "/sleep") + frame(
        PUSH_PROMISE, 4, 1, pack(">L", 2) + c.head()), PROTOCOL),
    ("6.7", "PING on a stream", lambda c: frame(PING, 0, 1, bytes(8)), PROTOCOL),
    ("6.7", "PING of seven bytes", lambda c: frame(PING, 0, 0, bytes(7)), FRAME_SIZE),
    ("6.8", "GOAWAY on a stream", lambda c: frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    ("6.8", "GOAWAY of seven bytes", lambda c: frame(
        GOAWAY, 0, 0, bytes(7)), FRAME_SIZE),
    ("6.9", "an increment of 0", lambda c: frame(
        WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL),
    ("6.9", "WINDOW_UPDATE of three bytes", lambda c: frame(
        WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE),
    ("6.9.1", "a window of the connection above 2**31-1", lambda c: frame(
        WINDOW_UPDATE, 0, 0, pack(">L", GREATEST_WINDOW)), FLOW_CONTROL),
    ("6.9.1", "more DATA than the window", lambda c: frame(
        HEADERS, END_HEADERS, 1, c.head("/sleep", [("content-length", "99999")]))
        + frame(DATA, 0, 1, bytes(16384)) * 5, FLOW_CONTROL),
    ("6.10", "CONTINUATION behind the end of a head", lambda c: upload(c) + frame(
        CONTINUATION, 4, 1, c.block([("a", "b")])), PROTOCOL),
    ("8.1", "trailers without END_STREAM", lambda c: upload(c) + frame(
        HEADERS, END_HEADERS, 1, c.block([("a", "b")])), PROTOCOL),
    ("RFC 9218 7.1", "PRIORITY_UPDATE on a stream", lambda c: frame(
        PRIORITY_UPDATE, 0, 1, pack(">L", 1)), PROTOCOL),
    ("RFC 9218 7.1", "PRIORITY_UPDATE of stream 0", lambda c: frame(
        PRIORITY_UPDATE, 0, 0, bytes(4)), PROTOCOL),
    ("RFC 9218 7.1", "PRIORITY_UPDATE of three bytes", lambda c: frame(
        PRIORITY_UPDATE, 0, 0, bytes(3)), FRAME_SIZE),
]  # fmt: skip

#: Section, description, frames, error code: those that end stream 1 only.
STREAM_ERRORS: list[tuple[str, str, Build, int]] = [
    ("5.1", "DATA on a half-closed stream", lambda c: c.request(1, "/sleep")
        + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    ("5.1", "HEADERS on a half-closed stream", lambda c: c.request(1, "/sleep")
        + c.request(1), STREAM_CLOSED),
    ("6.9.1", "a window above 2**31-1", lambda c: c.request(1, "/sleep") + frame(
        WINDOW_UPDATE, 0, 1, pack(">L", GREATEST_WINDOW)), FLOW_CONTROL),
    ("8.1.1", "less DATA than Content-Length", lambda c: upload(
        c, ("content-length", "3")) + frame(DATA, END_STREAM, 1, b"xx"), PROTOCOL),
    ("8.1.1", "more DATA than Content-Length", lambda c: upload(
        c, ("content-length", "1")) + frame(DATA, END_STREAM, 1, b"xx"), PROTOCOL),
    ("8.1.1", "Content-Length without DATA", lambda c: c.request(
        1, more=[("content-length", "1")]), PROTOCOL),
    ("8.1.1", "Content-Length and only trailers", lambda c: upload(
        c, ("content-length", "1")) + frame(
        HEADERS, WHOLE, 1, c.block([("a", "b")])), PROTOCOL),
    ("8.1.1", "a Content-Length that is no number", lambda c: upload(
        c, ("content-length", "+3")), PROTOCOL),
    ("8.2.1", "an upper case name", lambda c: c.request(
        1, more=[("Upper", "x")]), PROTOCOL),
    ("8.2.1", "a name with a space", lambda c: c.request(
        1, more=[("a b", "x")]), PROTOCOL),
    ("8.2.1", "an empty name", lambda c: c.request(1, more=[("", "x")]), PROTOCOL),
    ("8.2.1", "a value with a line feed", lambda c: c.request(
        1, more=[("a", "b\nc")]), PROTOCOL),
    ("8.2.1", "a value with NUL", lambda c: c.request(
        1, more=[("a", "b\0")]), PROTOCOL),
    ("8.2.1", "a value that begins with a space", lambda c: c.request(
        1, more=[("a", " b")]), PROTOCOL),
    ("8.2.2", "Connection", lambda c: c.request(
        1, more=[("connection", "close")]), PROTOCOL),
    ("8.2.2", "Transfer-Encoding", lambda c: c.request(
        1, more=[("transfer-encoding", "chunked")]), PROTOCOL),
    ("8.2.2", "Upgrade", lambda c: c.request(1, more=[("upgrade", "h2c")]), PROTOCOL),
    ("8.2.2", "TE other than trailers", lambda c: c.request(
        1, more=[("te", "gzip")]), PROTOCOL),
    ("8.3", "an unknown pseudo-header field", lambda c: c.request(
        1, more=[(":x", "y")]), PROTOCOL),
    ("8.3", "an unknown one in its place", lambda c: pseudo(
        c, METHOD, SCHEME, PATH, AUTHORITY, (":x", "y")), PROTOCOL),
    ("8.3", "one of responses", lambda c: pseudo(
        c, METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")), PROTOCOL),
    ("8.3", "one behind other fields", lambda c: pseudo(
        c, METHOD, SCHEME, ("a", "b"), PATH, AUTHORITY), PROTOCOL),
    ("8.3", "one in trailers", lambda c: upload(c) + frame(
        HEADERS, WHOLE, 1, c.block([PATH])), PROTOCOL),
    ("8.3.1", "a repeated one", lambda c: pseudo(
        c, METHOD, METHOD, SCHEME, PATH, AUTHORITY), PROTOCOL),
    ("8.3.1", "no :method", lambda c: pseudo(c, SCHEME, PATH, AUTHORITY), PROTOCOL),
    ("8.3.1", "no :scheme", lambda c: pseudo(c, METHOD, PATH, AUTHORITY), PROTOCOL),
    ("8.3.1", "no :path", lambda c: pseudo(c, METHOD, SCHEME, AUTHORITY), PROTOCOL),
    ("8.3.1", "an empty :path", lambda c: pseudo(
        c, METHOD, SCHEME, (":path", ""), AUTHORITY), PROTOCOL),
    ("8.3.1", "a :path without a slash", lambda c: c.request(1, "x"), PROTOCOL),
    ("8.3.1", "an absolute URI as :path", lambda c: c.request(
        1, "http://test/"), PROTOCOL),
    ("8.3.1", "Host that differs from :authority", lambda c: c.request(
        1, more=[("host", "other")]), PROTOCOL),
    ("8.5", "CONNECT with an invalid :protocol", lambda c: pseudo(
        c, (":method", "CONNECT"), SCHEME, PATH, AUTHORITY, (":protocol", "")),
        PROTOCOL),
    ("RFC 8441 4", ":protocol without CONNECT", lambda c: pseudo(
        c, METHOD, SCHEME, PATH, AUTHORITY, (":protocol", "websocket")), PROTOCOL),
]  # fmt: skip

#: Section, description, frames, status: those that get a response.
ANSWERS: list[tuple[str, str, Build, int]] = [
    ("4.1", "flags that are not defined", lambda c: frame(
        HEADERS, WHOLE | 0xC2, 1, c.head()), 200),
    ("4.1", "the reserved bit", lambda c: c.request(1 + 2**31), 200),
    ("4.3", "a head in several frames", lambda c: frame(
        HEADERS, END_STREAM, 1, HEAD[:5]) + frame(CONTINUATION, 0, 1) + frame(
        CONTINUATION, END_HEADERS, 1, HEAD[5:]), 200),
    ("5.1", "PRIORITY on an idle stream", lambda c: frame(
        PRIORITY, 0, 5, pack(">LB", 3, 1)) + c.request(1), 200),
    ("5.1", "WINDOW_UPDATE, RST_STREAM and PRIORITY on a closed stream", lambda c:
        c.request(1) + frame(WINDOW_UPDATE, 0, 1, pack(">L", 1)) + frame(
        RST_STREAM, 0, 1, bytes(4)) + frame(PRIORITY, 0, 1, pack(">LB", 0, 1)), 200),
    ("5.1.1", "streams that are left out", lambda c: c.request(1) + c.request(9), 200),
    ("5.5", "frames and settings that are not known", lambda c: frame(
        0x42, 0xFF, 7, b"x") + setting(0x99, 1) + c.request(1), 200),
    ("6.1", "padded DATA", lambda c: upload(c, ("content-length", "2")) + frame(
        DATA, PADDED | END_STREAM, 1, b"\3xx\0\0\0"), 200),
    ("6.2", "a padded head with a priority", lambda c: frame(
        HEADERS, WHOLE | PADDED | PRIORITY_FLAG, 1,
        b"\2" + pack(">LB", 0, 1) + c.head() + bytes(2)), 200),
    ("6.5.3", "SETTINGS with ACK", lambda c: frame(SETTINGS, ACK) + c.request(1), 200),
    ("8.1", "trailers", lambda c: upload(c) + frame(DATA, 0, 1, b"x") + frame(
        HEADERS, WHOLE, 1, c.block([("checksum", "1")])), 200),
    ("8.1", "a head and trailers only", lambda c: upload(c) + frame(
        HEADERS, WHOLE, 1, c.block([("checksum", "1")])), 200),
    ("8.2.2", "TE: trailers", lambda c: c.request(1, more=[("te", "trailers")]), 200),
    ("8.2.3", "crumbs of a cookie", lambda c: c.request(
        1, more=[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]), 200),
    ("8.3.1", "Host without :authority", lambda c: pseudo(
        c, METHOD, SCHEME, PATH, ("host", "test")), 200),
    ("8.3.1", "Host equal to :authority", lambda c: c.request(
        1, more=[("host", "TEST")]), 200),
    ("8.3.1", "OPTIONS *", lambda c: c.request(1, "*", method="OPTIONS"), 200),
    ("8.3.1", "neither Host nor :authority", lambda c: pseudo(
        c, METHOD, SCHEME, PATH), 400),
    ("8.3.1", ":authority with userinfo", lambda c: c.request(
        1, authority="user@test"), 400),
    ("8.5", "CONNECT", lambda c: pseudo(
        c, (":method", "CONNECT"), (":authority", "test:443")), 501),
    ("10.5.1", "a head above the limit", lambda c: frame(
        HEADERS, END_STREAM, 1, HEAD + b"\x00\x01x\x7f\xe9\x80\x02" + b"y" * 16_000)
        + frame(CONTINUATION, 0, 1, b"y" * 16_384)
        + frame(CONTINUATION, END_HEADERS, 1, b"y" * 616), 431),
    ("RFC 9110 4.1", "a long target", lambda c: c.request(1, "/" + "x" * 8192), 414),
    ("RFC 9110 10.1.1", "an unknown expectation", lambda c: c.request(
        1, more=[("expect", "magic")]), 417),
]  # fmt: skip


class ConformanceTests(LeakCheckMixin, SynchronousTestCase):
    """The table."""

    def setUp(self) -> None:
        """Start a server."""
        self.environs: list[Environ] = []
        self.server = self.serve(self.app, http2="h2c")
        self.addCleanup(self.server.advance, 100)

    def app(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer with the body; /sleep takes a minute."""
        self.environs.append(environ)
        if environ["PATH_INFO"] == "/sleep":
            environ["txgreenwsgi.sleep"](60)
        body = environ["wsgi.input"].read()
        start("200 OK", [("Content-Type", "text/plain")])
        return [body or b"none"]

    def client(self, settings: bytes | None = b"") -> RawClient:
        """Return a new client."""
        return RawClient(self.server, settings=settings)

    def assert_alive(self, client: RawClient, stream: int) -> None:
        """Fail unless a further request is answered."""
        client.send(client.request(stream, "/alive"))
        self.assertEqual(client.responses().get(stream), 200)
        self.assertIsNone(client.error())

    def test_connection_errors(self) -> None:
        """The connection ends with GOAWAY, behind the responses before the error."""
        for section, description, build, code in CONNECTION_ERRORS:
            client = self.client()
            client.send(build(client))
            found = client.error(), client.memory.closed
            self.assertEqual(found, (code, True), f"{section}: {description}")
            client.memory.disconnect()

    def test_stream_errors(self) -> None:
        """The stream is reset, and the connection goes on."""
        for section, description, build, code in STREAM_ERRORS:
            client = self.client()
            client.send(build(client))
            self.server.advance(1)
            found = client.resets()
            self.assertEqual(found, [(1, code)], f"{section}: {description}")
            self.assertEqual(client.responses(), {}, f"{section}: {description}")
            self.assert_alive(client, 101)
            client.memory.disconnect()

    def test_answers(self) -> None:
        """The request gets a response, and the connection goes on."""
        for section, description, build, status in ANSWERS:
            client = self.client()
            client.send(build(client))
            found = client.responses().get(1)
            self.assertEqual(found, status, f"{section}: {description}")
            self.assert_alive(client, 101)
            client.memory.disconnect()

    def test_preface(self) -> None:
        """3.4: SETTINGS must follow the preface; other bytes are HTTP/1.1."""
        client = self.client(None)
        client.send(PREFACE + frame(PING, 0, 0, bytes(8)))
        self.assertEqual(client.error(), PROTOCOL)
        client = self.client(None)
        client.send(PREFACE[:10])
        self.assertEqual(client.memory.received, b"")
        for byte in PREFACE[10:] + frame(SETTINGS):
            client.send(bytes([byte]))
        self.assert_alive(client, 1)
        client = self.client(None)
        client.send(PREFACE[:15] + b"1" + PREFACE[16:])
        self.assertTrue(client.memory.received.startswith(b"HTTP/1.1 505 "))

    def test_settings(self) -> None:
        """6.5: the server sends its settings first, and confirms those of clients."""
        client = self.client()
        first, *rest = client.received()
        self.assertEqual((first.kind, first.flags), (SETTINGS, 0))
        self.assertIn(Frame(SETTINGS, ACK, 0, b""), rest)
        pairs = [first.payload[at : at + 6] for at in range(0, len(first.payload), 6)]
        self.assertIn(pack(">HL", 3, 100), pairs)
        self.assertIn(pack(">HL", 4, 65536), pairs)
        self.assertIn(pack(">HL", 8, 1), pairs)

    def test_ping(self) -> None:
        """6.7: PING is answered with its payload, and an answer is not."""
        client = self.client()
        client.send(frame(PING, 0, 0, b"01234567") + frame(PING, ACK, 0, bytes(8)))
        self.assertEqual(client.of_kind(PING), [Frame(PING, ACK, 0, b"01234567")])

    def test_go_away_of_the_client(self) -> None:
        """6.8: after GOAWAY of a client its requests are answered, then it closes."""
        client = self.client()
        client.send(client.request(1, "/sleep") + frame(GOAWAY, 0, 0, bytes(8)))
        self.server.advance(30)
        client.send(frame(PING, 0, 0, bytes(8)))
        self.assertFalse(client.memory.closed)
        self.server.advance(31)
        self.assertEqual(client.responses(), {1: 200})
        self.assertTrue(client.memory.closed)

    def test_early_window(self) -> None:
        """6.9.2: a client may use the default window until it has the settings."""
        server = self.serve(self.app, http2="h2c", input_window=1000)
        client = RawClient(server, settings=None)
        client.send(
            PREFACE
            + frame(SETTINGS)
            + upload(client)
            + frame(DATA, END_STREAM, 1, b"x" * 16384)
        )
        self.assertEqual(client.responses(), {1: 200})
        client.send(frame(SETTINGS, ACK))
        client.send(upload(client, stream=3) + frame(DATA, 0, 3, b"x" * 1001))
        self.assertEqual(client.error(), FLOW_CONTROL)

    def test_windows_of_responses(self) -> None:
        """6.9: windows limit each response and all of them together."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"x" * 50_000]

        client = RawClient(self.serve(app, http2="h2c"), settings=pack(">HL", 4, 10))
        client.send(client.request(1) + client.request(3))
        sizes = [len(client.body(stream)) for stream in (1, 3)]
        self.assertEqual(sizes, [10, 10])
        client.send(setting(4, 40_000))
        sizes = [len(client.body(stream)) for stream in (1, 3)]
        self.assertEqual(sum(sizes), 65_535)
        client.send(setting(4, 1))  # makes the windows negative
        client.send(frame(WINDOW_UPDATE, 0, 0, pack(">L", 50_000)))
        self.assertEqual([len(client.body(stream)) for stream in (1, 3)], sizes)
        for stream in (1, 3):
            client.send(frame(WINDOW_UPDATE, 0, stream, pack(">L", 60_000)))
        sizes = [len(client.body(stream)) for stream in (1, 3)]
        self.assertEqual(sizes, [50_000, 50_000])
        ends = [each.stream for each in client.of_kind(DATA) if each.flags]
        self.assertEqual(sorted(ends), [1, 3])

    def test_windows_of_requests(self) -> None:
        """6.9: a window opens when the application has read, not before."""
        held: list[Any] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            for _ in range(3):
                held.append(environ["wsgi.input"].read(40_000))
                environ["txgreenwsgi.sleep"](1)
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"read"]

        server = self.serve(app, http2="h2c")
        client = RawClient(server)
        client.send(upload(client, ("content-length", str(7 * 16384))))
        for _ in range(4):
            client.send(frame(DATA, 0, 1, bytes(16384)))
        opened = [each for each in client.of_kind(WINDOW_UPDATE) if each.stream]
        self.assertEqual([int.from_bytes(e.payload, "big") for e in opened], [32768])
        server.advance(1)
        client.send(frame(DATA, 0, 1, bytes(16384)) * 3 + frame(DATA, END_STREAM, 1))
        server.advance(1)
        server.advance(1)
        self.assertEqual(client.responses(), {1: 200})
        self.assertEqual(sum(map(len, held)), 7 * 16384)

    def test_window_of_dropped_data(self) -> None:
        """6.9: data that is dropped returns to the window of the connection."""
        server = self.serve(self.app, http2="h2c", max_body=100, input_window=16384)
        client = RawClient(server)
        total = 0
        for stream in range(1, 101, 2):
            client.send(upload(client, stream=stream))
            client.send(frame(DATA, 0, stream, bytes(16384)))
            total += 16384
        self.assertEqual({*client.responses().values()}, {413})
        opened = [
            int.from_bytes(each.payload, "big")
            for each in client.of_kind(WINDOW_UPDATE)
            if not each.stream
        ]
        self.assertGreater(sum(opened), 16 * 16384 - 65535 + total - 65536)

    def test_environ(self) -> None:
        """8.3.1: the environ of a request."""
        client = self.client()
        client.send(
            client.request(
                1,
                "/a%20b?c=%20",
                [("cookie", "a=b"), ("accept", "*/*"), ("cookie", "c=d"), ("x_y", "1")],
                authority="Test:80",
            )
        )
        [environ] = self.environs
        self.assertEqual(environ["SERVER_PROTOCOL"], "HTTP/2.0")
        self.assertEqual(environ["PATH_INFO"], "/a b")
        self.assertEqual(environ["QUERY_STRING"], "c=%20")
        self.assertEqual(environ["HTTP_HOST"], "Test:80")
        self.assertEqual(environ["HTTP_COOKIE"], "a=b; c=d")
        self.assertEqual(environ["HTTP_ACCEPT"], "*/*")
        self.assertEqual(environ["wsgi.url_scheme"], "http")
        self.assertNotIn("HTTP_X_Y", environ)
        self.assertNotIn("CONTENT_LENGTH", environ)

    def test_large_response_head(self) -> None:
        """6.10: a long head leaves in several frames."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("X-Long", "y" * 40_000), ("Set-Cookie", "a=b")])
            return []

        client = RawClient(self.serve(app, http2="h2c"))
        client.send(client.request(1))
        kinds = [(each.kind, each.flags) for each in client.received()][-3:]
        self.assertEqual(
            kinds, [(HEADERS, END_STREAM), (CONTINUATION, 0), (CONTINUATION, 4)]
        )

    def test_table_size(self) -> None:
        """RFC 7541 4.2: a client that reduces the table is told that it is empty."""
        client = self.client(pack(">HL", 1, 0))
        client.send(client.request(1))
        client.send(client.request(3))
        starts = [each.payload[0] for each in client.of_kind(HEADERS)]
        self.assertEqual(starts, [0x20, 0x88])


class ExtendedConnectTests(LeakCheckMixin, SynchronousTestCase):
    """RFC 8441: bytes in both directions."""

    def test_both_ways(self) -> None:
        """The request is a CONNECT whose body and response are byte streams."""
        seen: list[Any] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            seen.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            start("200 OK", [])
            read = environ["txgreenwsgi.recv"]
            while data := read(environ, 100):
                yield data.upper()

        server = self.serve(app, http2="h2c", chunked="stream")
        client = RawClient(server)
        block = client.block(
            [
                (":method", "CONNECT"),
                (":protocol", "echo"),
                SCHEME,
                (":path", "/chat"),
                AUTHORITY,
            ]
        )
        client.send(frame(HEADERS, END_HEADERS, 1, block))
        client.send(frame(DATA, 0, 1, b"one "))
        self.assertEqual(client.body(1), b"ONE ")
        client.send(frame(DATA, 0, 1, b"two"))
        self.assertEqual(client.body(1), b"ONE TWO")
        client.send(frame(DATA, END_STREAM, 1))
        self.assertEqual(client.responses(), {1: 200})
        self.assertEqual(client.of_kind(DATA)[-1].flags, END_STREAM)
        self.assertEqual(seen, [("CONNECT", "/chat")])
