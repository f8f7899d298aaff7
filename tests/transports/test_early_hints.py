"""`wsgi.early_hints`: 103 responses before the response (RFC 8297)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txgreenwsgi import ClientDisconnected, NotInGreenlet, spawn, wait

from .harness import HTTP1, OWN_HTTP1, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .harness import Environ, Start

STYLE = ("Link", "</style.css>; rel=preload; as=style")
SCRIPT = ("Link", "</app.js>; rel=preload; as=script")


class EarlyHintCases(Cases):
    """Early hints, over any transport."""

    def test_before_the_response(self) -> None:
        """Hints arrive at once, while the application still prepares the response."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            hint = environ["wsgi.early_hints"]
            self.assertIsNone(hint([STYLE, SCRIPT]))
            environ["txgreenwsgi.sleep"](1)
            hint(iter([("X-More", "\xe4")]))
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", [*TEXT, STYLE])
            return [b"body"]

        server = self.serve(app)
        reply = server.begin()
        first = [("link", STYLE[1]), ("link", SCRIPT[1])]
        self.assertEqual((reply.state, reply.hints), ("waiting", [first]))
        server.advance(1)
        more = [first, [("x-more", "\xe4")]]
        self.assertEqual((reply.state, reply.hints), ("waiting", more))
        server.advance(1)
        self.assert_complete(reply, b"body")
        self.assertEqual(reply.hints, more)
        self.assertEqual(reply.values("Link"), [STYLE[1]])
        self.assertEqual(self.outcomes(), [(200, "finished")])
        self.assertEqual(self.records[0].bytes_sent, 4)
        again = server.begin(on=reply)
        server.advance(2)
        self.assert_complete(again, b"body")
        self.assertEqual(again.hints, more)

    def test_kinds_of_responses(self) -> None:
        """Hints precede a response of any kind, and after start_response too."""
        for status, blocks, method in (
            (200, [b"body"], "GET"),
            (200, iter([b"bo", b"dy"]), "GET"),
            (200, [], "GET"),
            (200, [b"body"], "HEAD"),
            (204, [], "GET"),
            (304, [], "GET"),
        ):

            def app(
                environ: Environ,
                start: Start,
                status: int = status,
                blocks: Iterable[bytes] = blocks,
            ) -> Iterable[bytes]:
                start(f"{status} X", [])
                environ["wsgi.early_hints"]([STYLE])
                return blocks

            server = self.serve(app)
            reply = server.begin(method)
            server.advance(0)
            self.assert_complete(reply, status=status)
            self.assertEqual(reply.hints, [[("link", STYLE[1])]])

    def test_with_a_body(self) -> None:
        """Hints do not disturb the request body that is read after them."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([STYLE])
            body = environ["wsgi.input"].read()
            environ["wsgi.early_hints"]([SCRIPT])
            start("200 OK", TEXT)
            return [body]

        server = self.serve(app)
        reply = server.begin("POST", body=b"x" * 100_000)
        server.advance(0)
        self.assert_complete(reply, b"x" * 100_000)
        self.assertEqual(len(reply.hints), 2)

    def test_before_a_failure(self) -> None:
        """A failure after hints is answered 500."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([STYLE])
            raise ZeroDivisionError

        reply = self.ask(app)
        self.assert_complete(reply, b"Internal Server Error\n", status=500)
        self.assertEqual(len(reply.hints), 1)
        self.assertEqual(len(self.errors()), 1)

    def test_nothing(self) -> None:
        """Without fields, nothing is sent."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([])
            start("200 OK", TEXT)
            return [b"body"]

        self.assertEqual(self.ask(app).hints, [])

    def test_refused_fields(self) -> None:
        """Fields that would split the response, or contradict it, are refused."""
        refused: list[Any] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            fields: Any
            for fields in (
                [STYLE, ("Link", "</a>\r\nSet-Cookie: evil")],
                [("Link", "</a>\n\nHTTP/1.1 200 OK")],
                [("Link", "\0")],
                [("Li nk", "x")],
                [("Link\r\n", "x")],
                [("Link", "\u20ac")],
                [("Content-Length", "5")],
                [("Transfer-Encoding", "chunked")],
                [("Connection", "close")],
                [("Link", b"x")],
                [("Link",)],
                {"Link": "x"},
                "Link",
                None,
            ):
                with self.assertRaises((TypeError, ValueError)):
                    environ["wsgi.early_hints"](fields)
                refused.append(fields)
            start("200 OK", TEXT)
            return [b"body"]

        reply = self.ask(app)
        self.assert_complete(reply, b"body")
        self.assertEqual((reply.hints, len(refused)), ([], 14))

    def test_too_late(self) -> None:
        """After the head, the call raises, and the response is unharmed."""
        raised: list[str] = []

        def app(environ: Environ, start: Start) -> Iterator[bytes]:
            kept.append(environ["wsgi.early_hints"])
            start("200 OK", TEXT)
            for block in (b"one", b"two"):
                yield block
                try:
                    environ["wsgi.early_hints"]([STYLE])
                except RuntimeError as error:
                    raised.append(str(error))

        kept: list[Any] = []
        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, b"onetwo")
        self.assertEqual(reply.hints, [])
        self.assertEqual(len(raised), 2)
        self.assertIn("after the response had begun", raised[0])
        self.assertRaises(NotInGreenlet, kept[0], [STYLE])

    def test_client_that_left(self) -> None:
        """If the client has disconnected, the call raises ClientDisconnected."""
        raised: list[BaseException] = []
        go: Deferred[None] = Deferred()

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            wait(go)
            try:
                environ["wsgi.early_hints"]([STYLE])
            except ClientDisconnected as error:
                raised.append(error)
                raise
            return []

        server = self.serve(app)
        reply = server.begin()
        server.disconnect(reply)
        go.callback(None)
        server.advance(1)
        self.assertEqual(len(raised), 1)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])

    def test_from_another_task(self) -> None:
        """A task that the application has started can send hints."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            wait(spawn(environ["wsgi.early_hints"], [STYLE]))
            start("200 OK", TEXT)
            return [b"body"]

        server = self.serve(app)
        reply = server.begin()
        server.advance(0)
        self.assert_complete(reply, b"body")
        self.assertEqual(len(reply.hints), 1)


class ContinueCases(Cases):
    """Early hints and `Expect: 100-continue`, over our own HTTP/1.1."""

    def test_both(self) -> None:
        """Hints neither replace 100 Continue nor prevent it."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([STYLE])
            environ["txgreenwsgi.sleep"](1)
            body = environ["wsgi.input"].read()
            environ["wsgi.early_hints"]([SCRIPT])
            start("200 OK", TEXT)
            return [body]

        server = self.serve(app)
        link = server.connect(slow=False)
        link.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 4\r\n\r\n"
        )
        server.settle()
        self.assertEqual(
            link.take(),
            b"HTTP/1.1 103 Early Hints\r\nLink: " + STYLE[1].encode() + b"\r\n\r\n",
        )
        server.advance(1)
        self.assertEqual(link.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        link.send(b"body")
        server.settle()
        interim, _, final = link.take().partition(b"\r\n\r\n")
        self.assertTrue(interim.startswith(b"HTTP/1.1 103 Early Hints\r\n"))
        self.assertTrue(final.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(final.endswith(b"\r\n\r\nbody"))
        link.disconnect()


class Http1Cases(Cases):
    """Early hints, over HTTP/1.1 and HTTP/1.0."""

    def test_http_1_0(self) -> None:
        """An HTTP/1.0 client gets no hints: it would take them for the response."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([STYLE])
            start("200 OK", TEXT)
            return [b"body"]

        server = self.serve(app)
        link = server.connect(slow=False)
        link.send(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        server.settle()
        data = link.take()
        self.assertNotIn(b"103", data)
        self.assertTrue(data.endswith(b"\r\n\r\nbody"))
        link.disconnect()

    def test_bytes(self) -> None:
        """A 103 response consists of its status line and the given fields."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            environ["wsgi.early_hints"]([STYLE])
            environ["txgreenwsgi.sleep"](1)
            start("200 OK", TEXT)
            return [b"body"]

        server = self.serve(app, add_header=[("X-Added", "1")])
        link = server.connect(slow=False)
        link.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.settle()
        self.assertEqual(
            link.take(),
            b"HTTP/1.1 103 Early Hints\r\n"
            b"Link: </style.css>; rel=preload; as=style\r\n\r\n",
        )
        server.advance(1)
        self.assertTrue(link.take().startswith(b"HTTP/1.1 200 OK\r\n"))
        link.disconnect()

    def test_backpressure(self) -> None:
        """An application that sends hints endlessly parks while the client is slow."""
        sent: list[int] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            while len(sent) < 20_000:
                sent.append(1)
                environ["wsgi.early_hints"]([("X", "x" * 5000)])
            start("200 OK", TEXT)
            return [b"body"]

        server = self.serve(app)
        reply = server.begin(slow=True)
        server.advance(1)
        self.assertLess(len(sent), 19_000)
        before = len(sent)
        server.advance(1)
        self.assertEqual(len(sent), before)
        server.disconnect(reply)
        server.advance(1)
        self.assertEqual(self.outcomes(), [(0, "disconnected")])


globals().update(on_every_transport(EarlyHintCases))
globals().update(on_every_transport(Http1Cases, only=HTTP1))
globals().update(on_every_transport(ContinueCases, only=OWN_HTTP1))
