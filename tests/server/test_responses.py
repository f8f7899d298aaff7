"""Response framing, and responses that an application must not send."""

from __future__ import annotations

from http.client import IncompleteRead
from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel

from .application import TEXT, application
from .wire import WireTestCase, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from txgreenwsgi.testing import MemoryClient, Response

    from .application import Environ, Start
    from .wire import App


def answering(
    *blocks: Any, status: Any = "200 OK", fields: Any = TEXT, as_list: bool = False
) -> App:
    """Return an application with that response, by a generator unless `as_list`."""

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start(status, list(fields) if isinstance(fields, list) else fields)
        return list(blocks) if as_list else iter(blocks)

    return app


class FramingTests(WireTestCase):
    """The end of a response (RFC 9112 section 6)."""

    def response(self, app: App, request: bytes = b"", method: str = "GET") -> Response:
        """Return the response of an application to a request."""
        client = self.connected(app)
        client.send(request or get(method=method))
        self.client = client
        return self.only(client, method)

    def test_length_of_a_list_of_one(self) -> None:
        """A list of one block gets a Content-Length (PEP 3333)."""
        for blocks in ([b"hello"], (b"hello",)):
            response = self.response(
                lambda environ, start, b=blocks: start("200 OK", TEXT) and b
            )
            self.assertEqual(response.header("Content-Length"), "5")
            self.assertIsNone(response.header("Transfer-Encoding"))

    def test_length_of_no_block(self) -> None:
        """A body without blocks has the length 0."""
        for app in (answering(), answering(as_list=True), answering(b"", b"")):
            response = self.response(app)
            self.assertEqual(response.header("Content-Length"), "0")
            self.assertEqual(response.body, b"")

    def test_length_of_anything_with_one_element(self) -> None:
        """The same holds for any iterable whose len() is one."""

        class One:
            def __len__(self) -> int:
                return 1

            def __iter__(self) -> Iterator[bytes]:
                return iter([b"one"])

        response = self.response(lambda environ, start: start("200 OK", TEXT) and One())
        self.assertEqual(response.header("Content-Length"), "3")

    def test_chunks(self) -> None:
        """A body of unknown length is chunked, one chunk for each block."""
        response = self.response(answering(b"a", b"bcd" * 10, b"", b"e"))
        self.assertEqual(response.header("Transfer-Encoding"), "chunked")
        self.assertIsNone(response.header("Content-Length"))
        self.assertTrue(
            self.client.received.endswith(
                b"\r\n\r\n1\r\na\r\n1e\r\n" + b"bcd" * 10 + b"\r\n1\r\ne\r\n0\r\n\r\n"
            )
        )
        self.assertFalse(self.client.closed)

    def test_large_blocks(self) -> None:
        """Blocks of any size arrive whole, in chunks and by length."""
        block = bytes(range(256)) * 1024
        self.assertEqual(self.response(answering(block, block)).body, block * 2)
        self.assertEqual(self.response(answering(block, as_list=True)).body, block)
        declared = [*TEXT, ("Content-Length", str(2 * len(block)))]
        response = self.response(answering(block, block, fields=declared))
        self.assertEqual(response.body, block * 2)

    def test_given_length(self) -> None:
        """The application's Content-Length is sent unchanged."""
        response = self.response(
            answering(b"ab", b"cd", fields=[*TEXT, ("Content-Length", "4")])
        )
        self.assertEqual(response.header("Content-Length"), "4")
        self.assertIsNone(response.header("Transfer-Encoding"))
        self.assertEqual(response.body, b"abcd")

    def test_head(self) -> None:
        """HEAD gets the fields of a GET, its length included, and no body."""
        declared = [*TEXT, ("Content-Length", "4")]
        for app in (
            answering(b"four", as_list=True),
            answering(b"fo", b"ur", fields=declared),
            answering(fields=declared),
        ):
            response = self.response(app, method="HEAD")
            self.assertEqual(response.header("Content-Length"), "4")
            self.assertTrue(self.client.received.endswith(b"\r\n\r\n"))
            self.client.send(get(method="HEAD"))
            self.assertEqual(len(self.client.responses(["HEAD", "HEAD"])), 2)

    def test_head_of_nothing(self) -> None:
        """HEAD of an application that omits the body declares no length."""
        for app in (answering(as_list=True), answering(b"a", b"b")):
            response = self.response(app, method="HEAD")
            self.assertIsNone(response.header("Content-Length"))
            self.assertIsNone(response.header("Transfer-Encoding"))

    def test_head_of_an_endless_body(self) -> None:
        """HEAD of an endless stream ends; close() is called."""
        closed: list[bool] = []

        def endless() -> Iterator[bytes]:
            try:
                while True:
                    yield b"more"
            finally:
                closed.append(True)

        response = self.response(
            lambda environ, start: start("200 OK", TEXT) and endless(), method="HEAD"
        )
        self.assertEqual(response.status, 200)
        self.assertEqual(closed, [True])

    def test_head_of_endless_writes(self) -> None:
        """HEAD of an application that writes for ever lets other requests run."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", TEXT)
            while environ["REQUEST_METHOD"] == "HEAD":
                write(b"more")
                server.reactor.rightNow += 0.001  # each block takes time
            return [b"get\n"]

        server = self.serve(app)
        client = server.connect()
        client.send(get(method="HEAD"))
        self.assertEqual(server.request().body, b"get\n")

    def test_statuses_without_a_body(self) -> None:
        """204 and 304 have no body, whatever the application returns."""
        for status in ("204 No Content", "304 Not Modified"):
            response = self.response(answering(b"what?", as_list=True, status=status))
            self.assertEqual(response.body, b"")
            self.assertTrue(self.client.received.endswith(b"\r\n\r\n"))
            self.assertIsNone(response.header("Content-Length"))
            self.assertIsNone(response.header("Transfer-Encoding"))
            self.assertFalse(self.client.closed)

    def test_204_with_a_length(self) -> None:
        """204 gets no Content-Length (RFC 9110 section 8.6): middleware sets it."""
        response = self.response(
            answering(status="204 No Content", fields=[("Content-Length", "0")])
        )
        self.assertIsNone(response.header("Content-Length"))

    def test_http_1_0(self) -> None:
        """HTTP/1.0 has no chunks: a body of unknown length ends with the connection."""
        response = self.response(answering(b"a", b"b"), get(version="HTTP/1.0"))
        self.assertEqual(response.body, b"ab")
        self.assertEqual(response.header("Connection"), "close")
        self.assertIsNone(response.header("Transfer-Encoding"))
        self.assertTrue(self.client.closed)
        self.assertFalse(self.client.reset)

    def test_http_1_0_kept_alive(self) -> None:
        """HTTP/1.0 with keep-alive persists if the length is known."""
        client = self.connected(application)
        request = get("/", "Connection: keep-alive", version="HTTP/1.0")
        client.send(request + request)
        first, second = client.responses()
        self.assertEqual(first.header("Connection"), "keep-alive")
        self.assertEqual(second.body, b"hello\n")
        self.assertFalse(client.closed)
        client.send(get("/stream", "Connection: keep-alive", version="HTTP/1.0"))
        self.assertEqual(client.responses()[2].header("Connection"), "close")
        self.assertTrue(client.closed)

    def test_http_1_0_kept_alive_after_several_blocks(self) -> None:
        """A list or tuple of several blocks has a known length in HTTP/1.0 too."""
        request = get("/", "Connection: keep-alive", version="HTTP/1.0")
        for blocks in ([b"", b"a", b"b", b""], (b"a", b"b")):
            client = self.connected(
                lambda environ, start, b=blocks: start("200 OK", TEXT) and b
            )
            client.send(request + request)
            client.server.advance(0)
            for response in client.responses():
                self.assertEqual(response.header("Connection"), "keep-alive")
                self.assertEqual(response.header("Content-Length"), "2")
                self.assertEqual(response.body, b"ab")
            self.assertEqual(len(client.responses()), 2)
            self.assertFalse(client.closed)

    def test_no_keep_alive(self) -> None:
        """--keep-alive 0 closes after each response."""
        client = self.connected(application, keep_alive=0)
        client.send(get("/") + get("/"))
        self.assertEqual(self.only(client).header("Connection"), "close")
        self.assertTrue(client.closed)

    def test_close_with_more_to_read(self) -> None:
        """Requests behind the last one are read, so that its response is not lost.

        A close with unread bytes would reset the connection (RFC 9112 section 9.6).
        """
        server = self.serve(application)
        client = server.connect()
        client.send(get("/sleep", version="HTTP/1.0") + get("/") * 10_000)
        server.advance(1)
        self.assertEqual(len(client.responses()), 1)
        self.assertTrue(client.closed)
        self.assertFalse(client.reset)
        server.settle()
        self.assertEqual(len(client.socket.to_server), 0)


class LengthTests(WireTestCase):
    """Bodies that differ from their Content-Length."""

    def ask(self, app: App) -> MemoryClient:
        """Return a client that has sent a request, and a second one behind it."""
        client = self.connected(app)
        client.send(get("/"))
        return client

    def assert_cut(self, app: App, body: bytes) -> None:
        """Fail unless the body is cut there and logged, and the next is complete."""
        client = self.ask(app)
        self.assertEqual(self.only(client).body, body)
        self.assert_logged(
            "GET /", "longer than its Content-Length", level=LogLevel.error
        )
        self.assertEqual(self.outcomes(), [(200, "error")])
        self.assertEqual(self.records[0].bytes_sent, len(body))
        client.send(get("/"))
        self.assertEqual([each.body for each in client.responses()], [body, body])
        self.events.clear()
        self.records.clear()

    def test_too_long(self) -> None:
        """A longer body is cut at its length: no excess reaches the next response."""
        fields = [*TEXT, ("Content-Length", "4")]
        self.assert_cut(answering(b"four, and more", fields=fields), b"four")
        self.assert_cut(
            answering(b"four, and more", fields=fields, as_list=True), b"four"
        )
        self.assert_cut(answering(b"fo", b"ur, and more", fields=fields), b"four")
        self.assert_cut(answering(b"four", b"and more", fields=fields), b"four")
        self.assert_cut(answering(b"four", b"", b"and more", fields=fields), b"four")

    def test_longer_than_nothing(self) -> None:
        """The same holds for a length of 0."""
        fields = [*TEXT, ("Content-Length", "0")]
        self.assert_cut(answering(b"more", fields=fields), b"")
        self.assert_cut(answering(b"more", fields=fields, as_list=True), b"")

    def test_longer_than_one_element(self) -> None:
        """The same holds for an iterable of len() one that yields two blocks."""

        class Liar:
            def __len__(self) -> int:
                return 1

            def __iter__(self) -> Iterator[bytes]:
                return iter([b"one", b"two"])

        self.assert_cut(lambda environ, start: start("200 OK", TEXT) and Liar(), b"one")

    def test_too_long_by_write(self) -> None:
        """write() beyond the length raises (PEP 3333, Handling Content-Length)."""
        raised: list[bool] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            write = start("200 OK", [*TEXT, ("Content-Length", "4")])
            write(b"four")
            try:
                write(b"more")
            except AssertionError:
                raised.append(True)
                raise
            return []

        self.assert_cut(app, b"four")
        self.assertEqual(raised, [True, True])

    def test_the_rest_is_not_asked_for(self) -> None:
        """A stream beyond its length is closed, not iterated further."""
        taken: list[int] = []
        closed: list[bool] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            start("200 OK", [*TEXT, ("Content-Length", "4")])
            try:
                for number in range(10):
                    taken.append(number)
                    yield b"two"[:2]
            finally:
                closed.append(True)

        self.ask(app)
        self.assertEqual(taken, [0, 1, 2])
        self.assertEqual(closed, [True])

    def test_too_short(self) -> None:
        """A shorter body closes the connection, which the client can detect."""
        fields = [*TEXT, ("Content-Length", "9")]
        for app in (
            answering(b"four", fields=fields),
            answering(b"four", fields=fields, as_list=True),
            answering(b"fo", b"ur", fields=fields),
            answering(fields=fields),
        ):
            client = self.ask(app)
            self.assertTrue(client.closed)
            self.assertIn(b"Content-Length: 9\r\n", client.received)
            self.assertRaises(IncompleteRead, client.responses)
            self.assert_logged(
                "GET /", "bytes before its Content-Length", level=LogLevel.error
            )
            self.assertEqual(self.outcomes(), [(200, "error")])
            self.events.clear()
            self.records.clear()

    def test_too_short_and_a_request_behind_it(self) -> None:
        """The next request is not answered: its response would complete the body."""
        client = self.connected(answering(b"four", fields=[("Content-Length", "9")]))
        client.send(get("/") + get("/"))
        self.assertEqual(client.received.count(b"HTTP/1.1"), 1)
        self.assertTrue(client.closed)


class HeadTests(WireTestCase):
    """Response heads, and invalid ones."""

    def test_added(self) -> None:
        """Date and Server are added unless the application sets them."""
        client = self.connected(application)
        client.send(get("/"))
        response = self.only(client)
        self.assertEqual(response.header("Server"), "txgreenwsgi")
        self.assertRegex(
            response.header("Date") or "", r"^\w{3}, \d\d \w{3} \d{4} .* GMT$"
        )

    def test_given(self) -> None:
        """The application's fields are sent once and unchanged."""
        fields = [
            ("Server", "mine"),
            ("date", "today"),
            ("Set-Cookie", "a"),
            ("Set-Cookie", "b"),
        ]
        client = self.connected(answering(b"", fields=fields))
        client.send(get("/"))
        response = self.only(client)
        self.assertEqual(response.header("Server"), "mine")
        self.assertEqual(response.header("Date"), "today")
        self.assertEqual(response.header("Set-Cookie"), "a, b")

    def test_status(self) -> None:
        """Status code and reason are the application's."""
        for status in (
            "200 OK",
            "299 Fine, thank you",
            "599 ",
            "418 I'm a teapot \xe9",
        ):
            client = self.connected(answering(b"", status=status))
            client.send(get("/"))
            self.assertTrue(
                client.received.startswith(f"HTTP/1.1 {status}\r\n".encode("latin-1"))
            )

    def test_deployers_fields(self) -> None:
        """--add-header adds a field unless the application sets it."""
        pairs = [
            ("X-Frame-Options", "DENY"),
            ("Content-Type", "x/y"),
            ("Server", "other"),
        ]
        client = self.connected(application, add_header=pairs)
        client.send(get("/") + get("test:80", method="CONNECT"))
        for response in client.responses():
            self.assertEqual(response.header("X-Frame-Options"), "DENY")
            self.assertTrue(
                (response.header("Content-Type") or "").startswith("text/plain")
            )
            self.assertEqual(response.header("Server"), "other")

    def test_no_server_field(self) -> None:
        """--server-header '' sends no Server field."""
        client = self.connected(application, server_header="")
        client.send(get("/"))
        self.assertIsNone(self.only(client).header("Server"))

    def assert_refused(self, app: App, *reason: str, **settings: Any) -> None:
        """Fail unless the client gets a 500, and the log has the reason."""
        client = self.connected(app, **settings)
        client.send(get("/path"))
        response = self.only(client)
        self.assertEqual(response.status, 500, reason)
        self.assertEqual(response.body, b"Internal Server Error\n")
        self.assertEqual(response.header("Connection"), "close")
        self.assertNotIn(b"evil", client.received)
        self.assertTrue(client.closed)
        (failure,) = self.flushLoggedErrors()
        for part in reason:
            self.assertIn(part, failure.getErrorMessage())
        self.assert_logged("GET /path (request ", "failed", level=LogLevel.critical)
        self.assertEqual(self.outcomes(), [(500, "error")])
        self.events.clear()
        self.records.clear()

    def test_split(self) -> None:
        """CR, LF or NUL in a field or status gets 500, and splits nothing."""
        for fields in (
            [("X-Foo", "a\r\nSet-Cookie: evil")],
            [("X-Foo", "a\nevil: 1")],
            [("X-Foo", "a\revil")],
            [("X-Foo", "a\0evil")],
            [("X-Foo\r\nevil", "a")],
        ):
            self.assert_refused(answering(b"x", fields=fields), "X-Foo")
        for status in ("200 OK\r\nSet-Cookie: evil", "200 OK\nevil", "200 evil\0"):
            self.assert_refused(answering(b"x", status=status), "the status is")

    def test_bad_fields(self) -> None:
        """Invalid fields get 500, and the log has the reason."""
        for fields, reason in (
            ([("X Foo", "1")], "not a field name"),
            ([("", "1")], "not a field name"),
            ([("X:", "1")], "not a field name"),
            ([("X-Foo", "\u20ac")], "not latin-1"),
            ([("X-Foo", b"1")], "must be str"),
            ([("X-Foo", 1)], "must be str"),
            ([(b"X-Foo", "1")], "must be str"),
            (["X-Foo: 1"], "a pair"),
            ([("X-Foo", "1", "2")], "a pair"),
            ({"X-Foo": "1"}, "give its items()"),
            (None, "give an iterable of pairs"),
            ([("Content-Length", "+3")], "a number of bytes"),
            ([("Content-Length", "")], "a number of bytes"),
            ([("Content-Length", "\u0663")], "not latin-1"),
            ([("Content-Length", "3"), ("content-length", "3")], "two Content-Length"),
        ):
            self.assert_refused(answering(b"x", fields=fields), reason)

    def test_strict_fields(self) -> None:
        """With `strict`, the headers must be a list of tuples."""
        for fields, reason in (
            ([["X-Foo", "1"]], "a tuple"),
            ([*TEXT, ["X-Foo", "1"]], "a tuple"),
            (["X-Foo: 1"], "a tuple"),
            ([("X-Foo", "1", "2")], "a tuple"),
            ((("X-Foo", "1"),), "as a list"),
            ({"X-Foo": "1"}, "as a list"),
            (None, "as a list"),
            ([("X-Foo", 1)], "must be str"),
        ):
            self.assert_refused(answering(b"x", fields=fields), reason, strict=True)

    def test_hop_by_hop(self) -> None:
        """With `strict`, hop-by-hop fields are refused (PEP 3333, HTTP Features)."""
        for name in (
            *("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization"),
            *("TE", "Trailer", "transfer-encoding", "UPGRADE", "Proxy-Connection"),
        ):
            app = answering(b"x", fields=[(name, "close")])
            self.assert_refused(app, name, "hop-by-hop", strict=True)

    def test_bad_statuses(self) -> None:
        """Invalid statuses get 500, and the log has the reason."""
        for strict in (False, True):
            for status in ("OK", "", "20", "2000", "099", "20\n", "2x0"):
                self.assert_refused(
                    answering(b"x", status=status), "three digits", strict=strict
                )
        self.assert_refused(answering(b"x", status="200"), "three digits", strict=True)
        for status in (
            "OK",
            "",
            "20 OK",
            "2000 OK",
            " 200 OK",
            "099 Low",
            "200\tOK",
        ):
            self.assert_refused(answering(b"x", status=status), "three digits")
        self.assert_refused(answering(b"x", status="200 \u20ac"), "latin-1")
        for status in ("100 Continue", "101 Switching Protocols", "103 Early Hints"):
            self.assert_refused(answering(b"x", status=status), "interim")
        for wrong in (200, None, b"200 OK", ("200", "OK")):
            self.assert_refused(answering(b"x", status=wrong), "must be a str")

    def test_bad_blocks(self) -> None:
        """Blocks that are not bytes get 500, and the log has their type."""
        wrong: Callable[[Any], App]
        for as_list in (False, True):
            for block in ("text", bytearray(b"x"), memoryview(b"x"), 1):
                app = answering(block, as_list=as_list)
                reason = "must be bytes, not", type(block).__name__
                self.assert_refused(app, *reason, strict=True)
                if isinstance(block, str | int):
                    self.assert_refused(app, *reason)
        self.assert_refused(
            answering(None, as_list=True), "must be bytes, not NoneType"
        )
        wrong = lambda given: lambda environ, start: start("200 OK", TEXT)(given)  # noqa: E731
        self.assert_refused(wrong("text"), "must be bytes, not str")
        self.assert_refused(wrong(bytearray(b"x")), "not bytearray", strict=True)

    def test_empty_text(self) -> None:
        """An empty str, as old applications yield it, is an empty block."""
        client = self.connected(answering("", b"some", ""))
        client.send(get("/"))
        self.assertEqual(self.only(client).body, b"some")

    def test_no_start(self) -> None:
        """An application that never calls start_response gets a 500 and a log line."""
        for returned in ([b"x"], [], [b"", b"x"], iter([b"x"]), iter([])):
            self.assert_refused(
                lambda environ, start, returned=returned: returned,
                "without having called start_response",
            )

    def test_no_iterable(self) -> None:
        """An application that returns no iterable gets a 500."""
        nothing: Any = None
        self.assert_refused(
            lambda environ, start: start("200 OK", TEXT) and nothing, "returned None"
        )
