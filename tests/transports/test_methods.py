"""Request methods: every token reaches the application, if no list restricts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .harness import HTTP1, HTTP2, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Start

TOKENS = [
    *("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"),
    *("BREW", "get", "Get", "VERSION-CONTROL", "UPDATEREDIRECTREF", "SUBSCRIBE"),
    *("M-SEARCH", "GETS", "head", "connect", "CONNECTS", "!#$%&'*+-.^_`|~0", "x" * 256),
    *("PLAY", "SOURCE", "ANNOUNCE", "DESCRIBE"),
]


def echo(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with the method and the request body."""
    body = environ["wsgi.input"].read()
    start("200 OK", TEXT)
    return [environ["REQUEST_METHOD"].encode("latin-1"), b" ", body]


class MethodCases(Cases):
    """Methods, over any transport."""

    def test_every_token(self) -> None:
        """Every token reaches the application unchanged (RFC 9110 section 9.1)."""
        server = self.serve(echo)
        reply = server.begin()
        for method in TOKENS:
            reply = server.begin(method, on=reply)
            self.assert_complete(reply, method.encode() + b" ")
        self.assertEqual(self.records[-1].method, TOKENS[-1])

    def test_bodies(self) -> None:
        """A method does not change the framing of a request body."""
        server = self.serve(echo)
        reply = server.begin()
        for method in TOKENS:
            body = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
            reply = server.begin(method, body=body, on=reply)
            self.assert_complete(reply, method.encode() + b" " + body)
        self.assertEqual(len(server.app.environs), len(TOKENS) + 1)

    def test_unserved(self) -> None:
        """A method that is too long gets 501."""
        server = self.serve(echo)
        self.assert_complete(server.begin("x" * 257), status=501)
        self.assertEqual(server.app.environs, [])

    def test_allowed(self) -> None:
        """With `methods`, others get 405 and the list (RFC 9110 section 15.5.6)."""
        for methods in (["GET", "BREW"], "GET, BREW", ("GET", "BREW")):
            server = self.serve(echo, methods=methods)
            for method in ("GET", "BREW"):
                self.assert_complete(server.begin(method), method.encode() + b" ")
            for method in ("HEAD", "POST", "brew", "get", "BREWS"):
                reply = server.begin(method, body=b"" if method == "HEAD" else b"x")
                self.assert_complete(reply, status=405)
                self.assertEqual(reply.header("Allow"), "GET, BREW")
            self.assertEqual(len(server.app.environs), 2)
        self.assertEqual(self.outcomes().count((405, "refused")), 15)


class TunnelCases(Cases):
    """CONNECT, over HTTP/1.1."""

    def test_bytes_behind_it(self) -> None:
        """The bytes behind CONNECT are not read as requests."""
        for head in (
            b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
            b"CONNECT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            b"CONNECT http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            server = self.serve(echo)
            link = server.connect(slow=False)
            link.send(head + b"GET /tunnelled HTTP/1.1\r\nHost: x\r\n\r\n")
            server.settle()
            data = link.take()
            self.assertTrue(data.startswith(b"HTTP/1.1 501 "), data)
            self.assertEqual(data.count(b"HTTP/1.1 "), 1)
            self.assertIn(b"\r\nConnection: close\r\n", data)
            self.assertEqual(server.app.environs, [])
            link.disconnect()


class Http2MethodCases(Cases):
    """Invalid methods, over HTTP/2."""

    def test_other_bytes(self) -> None:
        """A method that is not a token does not reach the application."""
        for method in ("G(T", "GET /", "G\xc4T", "GET:"):
            server = self.serve(echo)
            reply = server.begin(method)
            self.assertIn(
                (reply.status, reply.state), [(400, "complete"), (None, "cut")]
            )
            self.assertEqual(server.app.environs, [])


globals().update(on_every_transport(MethodCases))
globals().update(on_every_transport(Http2MethodCases, only=HTTP2))
globals().update(on_every_transport(TunnelCases, only=HTTP1))
