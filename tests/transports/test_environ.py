"""The environ of a request: the same on every transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.web.resource import Resource

from .harness import (
    OWN,
    OWN_HTTP1,
    STREAMING,
    TEXT,
    WEB,
    Cases,
    MemoryTransport,
    WebTransport,
    on_every_transport,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Start

#: Our own HTTP/1.1.

#: Variables that differ between transports or requests.
OF_THE_TRANSPORT = {
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "wsgi.url_scheme",
    "txgreenwsgi.request_id",
}

#: Variables of our own transport over TLS.
OF_TLS = {"HTTPS", "SSL_CIPHER", "SSL_PROTOCOL"}


def echo(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with the request body."""
    body = environ["wsgi.input"].read()
    start("200 OK", TEXT)
    return [body]


class EnvironCases(Cases):
    """Variables of the request."""

    def environ(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        **settings: Any,
    ) -> Environ:
        """Return the environ of one request."""
        server = self.serve(echo, **settings)
        self.assert_complete(server.begin(method, target, headers, body), body)
        return server.app.environs[0]

    def test_equal_on_all_transports(self) -> None:
        """A request has the same environ in memory as on this transport."""
        request: Any = (
            "POST",
            "/path%20x/y?q=%20",
            [
                ("Content-Type", "text/x"),
                ("X-One", "1"),
                ("Accept", "a"),
                ("Accept", "b"),
                ("Cookie", "a=1"),
                ("Cookie", "b=2"),
            ],
            b"body",
        )
        here = self.environ(*request)
        server = MemoryTransport(echo, [], {})
        reply = server.begin(*request)
        expected = server.app.environs[0]
        self.assertIn(set(here) - set(expected), (set(), OF_TLS))
        self.assertLessEqual(set(expected), set(here))
        for name, value in expected.items():
            if name in OF_THE_TRANSPORT:
                self.assertEqual(type(here[name]), str)
            elif isinstance(value, (str, bool, tuple)):
                self.assertEqual(here[name], value, name)
        server.disconnect(reply)

    def test_request(self) -> None:
        """Method, path, query and target have their standard variables."""
        environ = self.environ("PUT", "/a%20b/%C3%BC?x=%20&y=/")
        self.assertEqual(environ["REQUEST_METHOD"], "PUT")
        self.assertEqual(environ["SCRIPT_NAME"], "")
        self.assertEqual(environ["PATH_INFO"], "/a b/\u00c3\u00bc")
        self.assertEqual(environ["QUERY_STRING"], "x=%20&y=/")
        self.assertEqual(environ["REQUEST_URI"], "/a%20b/%C3%BC?x=%20&y=/")
        self.assertEqual(environ["RAW_URI"], "/a%20b/%C3%BC?x=%20&y=/")
        self.assertEqual(environ["SERVER_PROTOCOL"], self.transport.version)

    def test_paths(self) -> None:
        """PATH_INFO is the decoded path, for any bytes."""
        for target, path in [
            ("/", "/"),
            ("//a//b/", "//a//b/"),
            ("/a%2Fb", "/a/b"),
            ("/a/../b/./c", "/a/../b/./c"),
            ("/%2e%2e/", "/../"),
            ("/a;b=c", "/a;b=c"),
            ("/100%", "/100%"),
            ("/?", "/"),
            ("/a?b?c", "/a"),
        ]:
            environ = self.environ(target=target)
            self.assertEqual(environ["PATH_INFO"], path, target)
            self.assertEqual(environ["REQUEST_URI"], target)

    def test_addresses(self) -> None:
        """Addresses and ports of server and client are in the environ."""
        environ = self.environ()
        self.assertEqual(environ["SERVER_NAME"], "127.0.0.1")
        self.assertTrue(environ["SERVER_PORT"].isdecimal())
        self.assertIn(environ["REMOTE_ADDR"], ("127.0.0.1", "192.0.2.1"))
        self.assertTrue(environ["REMOTE_PORT"].isdecimal())
        self.assertEqual(environ["HTTP_HOST"], "test.example")

    def test_headers(self) -> None:
        """Fields become HTTP_ variables; repeated fields are joined."""
        environ = self.environ(
            headers=[
                ("X-Foo", "one"),
                ("x-foo", "two"),
                ("Cookie", "a=1"),
                ("Cookie", "b=2"),
                ("X-Latin", "gr\u00fcn"),
            ]
        )
        self.assertEqual(environ["HTTP_X_FOO"], "one, two")
        self.assertEqual(environ["HTTP_COOKIE"], "a=1; b=2")
        self.assertEqual(environ["HTTP_X_LATIN"], "gr\u00fcn")

    def test_content(self) -> None:
        """The variables of Content-Type and Content-Length have no HTTP_ prefix."""
        environ = self.environ("POST", headers=[("Content-Type", "a/b")], body=b"abc")
        self.assertEqual(environ["CONTENT_TYPE"], "a/b")
        self.assertEqual(environ["CONTENT_LENGTH"], "3")
        self.assertNotIn("HTTP_CONTENT_TYPE", environ)
        self.assertNotIn("HTTP_CONTENT_LENGTH", environ)

    def test_ambiguous_headers(self) -> None:
        """X_Foo is not accepted as X-Foo, and Proxy does not become HTTP_PROXY."""
        environ = self.environ(
            headers=[("X-Foo", "real"), ("X_Foo", "false"), ("Proxy", "evil")]
        )
        self.assertEqual(environ["HTTP_X_FOO"], "real")
        self.assertNotIn("HTTP_PROXY", environ)
        environ = self.environ(headers=[("X_Foo", "false")])
        self.assertNotIn("HTTP_X_FOO", environ)

    def test_variables_of_the_deployer(self) -> None:
        """Variables of the deployer override those of the client."""
        environ = self.environ(
            headers=[("X-Role", "admin"), ("X-Other", "kept")],
            environ={"HTTP_X_ROLE": "guest", "MY": "own", "REMOTE_ADDR": "10.0.0.1"},
        )
        self.assertEqual(environ["HTTP_X_ROLE"], "guest")
        self.assertEqual(environ["HTTP_X_OTHER"], "kept")
        self.assertEqual(environ["MY"], "own")
        self.assertEqual(environ["REMOTE_ADDR"], "10.0.0.1")

    def test_url_scheme(self) -> None:
        """wsgi.url_scheme is that of the connection, or the deployer's."""
        self.assertEqual(self.environ()["wsgi.url_scheme"], self.transport.scheme)
        for scheme in ("http", "https"):
            environ = self.environ(url_scheme=scheme)
            self.assertEqual(environ["wsgi.url_scheme"], scheme)

    def test_wsgi_variables(self) -> None:
        """The variables of PEP 3333 have their types and values."""
        environ = self.environ()
        self.assertEqual(type(environ), dict)
        self.assertEqual(environ["wsgi.version"], (1, 0))
        self.assertIs(environ["wsgi.multithread"], True)
        self.assertIs(environ["wsgi.multiprocess"], False)
        self.assertIs(environ["wsgi.run_once"], False)
        self.assertIs(environ["wsgi.input_terminated"], True)
        self.assertEqual(environ["SERVER_SOFTWARE"], "txgreenwsgi")
        self.assertEqual(environ["GATEWAY_INTERFACE"], "CGI/1.1")

    def test_request_ids(self) -> None:
        """Each request has a unique id."""
        server = self.serve(echo)
        for _ in range(3):
            server.begin()
        ids = [environ["txgreenwsgi.request_id"] for environ in server.app.environs]
        self.assertEqual(len(set(ids)), 3)

    def test_unusual_methods(self) -> None:
        """Any method reaches the application."""
        for method in ("PATCH", "PROPFIND", "DELETE"):
            self.assertEqual(self.environ(method)["REQUEST_METHOD"], method)


class InputCases(Cases):
    """wsgi.input."""

    def test_ways_to_read(self) -> None:
        """read, readline, readlines and iteration return the body."""
        content = b"first\nsecond\n\nlast"
        lines = [b"first\n", b"second\n", b"\n", b"last"]

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            body = environ["wsgi.input"]
            found: list[object] = {
                "/read": lambda: [body.read(), body.read()],
                "/sizes": lambda: [body.read(4), body.read(0), body.read(100)],
                "/line": lambda: [body.readline(), body.readline(3), body.read()],
                "/lines": body.readlines,
                "/iterate": lambda: list(body),
            }[environ["PATH_INFO"]]()
            read.append(found)
            start("200 OK", TEXT)
            return [b"x"]

        read: list[list[object]] = []
        server = self.serve(app)
        for target in ("/read", "/sizes", "/line", "/lines", "/iterate"):
            self.assert_complete(server.begin("POST", target, body=content))
        self.assertEqual(
            read,
            [
                [content, b""],
                [b"firs", b"", content[4:]],
                [b"first\n", b"sec", b"ond\n\nlast"],
                lines,
                lines,
            ],
        )

    def test_no_body(self) -> None:
        """Without a body the input is at its end."""
        for method in ("GET", "POST"):
            self.assert_complete(self.ask(echo, method), b"")

    def test_large_body(self) -> None:
        """A request body of a megabyte is read completely."""
        content = bytes(range(256)) * 4096
        server = self.serve(echo)
        reply = server.begin("POST", body=content)
        server.advance(0)
        self.assert_complete(reply)
        self.assertTrue(reply.body == content)

    def test_unread_body(self) -> None:
        """A body that the application does not read does not affect later requests."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("403 Forbidden", TEXT)
            return [b"no\n"]

        server = self.serve(app)
        for size in (10, 100_000):
            reply = server.begin("POST", body=b"x" * size)
            self.assert_complete(reply, b"no\n", status=403)


class StreamedInputCases(Cases):
    """wsgi.input on transports that stream the request body."""

    def test_read_as_it_comes(self) -> None:
        """A read parks until its bytes have arrived."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            read.append(environ["wsgi.input"].read(3))
            read.append(environ["wsgi.input"].read())
            start("200 OK", TEXT)
            return [b"x"]

        read: list[bytes] = []
        server = self.serve(app)
        reply = server.begin("POST", body=b"ab", length=9)
        self.assertEqual(read, [])
        server.send_body(reply, b"cd")
        self.assertEqual(read, [b"abc"])
        server.send_body(reply, b"efghi", end=True)
        self.assertEqual(read, [b"abc", b"defghi"])
        self.assert_complete(reply, b"x")


class AsteriskCases(Cases):
    """OPTIONS * over our own HTTP."""

    def test_asterisk(self) -> None:
        """OPTIONS * refers to the server: its path is empty."""
        server = self.serve(echo)
        self.assert_complete(server.begin("OPTIONS", "*"), b"")
        [environ] = server.app.environs
        self.assertEqual(environ["REQUEST_METHOD"], "OPTIONS")
        self.assertEqual(environ["PATH_INFO"], "")
        self.assertEqual(environ["SCRIPT_NAME"], "")
        self.assertEqual(environ["REQUEST_URI"], "*")


class PrefixCases(Cases):
    """`prefix`."""

    def test_prefix(self) -> None:
        """The prefix is SCRIPT_NAME, and is removed from the decoded PATH_INFO."""
        for target, path in (
            ("/app/x%20y?q", "/x y"),
            ("/%61pp/x", "/x"),
            ("/app", ""),
            ("/app/", "/"),
            ("/apple", "/apple"),
            ("/example", "/example"),
        ):
            server = self.serve(echo, prefix="/app/")
            self.assert_complete(server.begin(target=target), b"")
            [environ] = server.app.environs
            self.assertEqual(environ["SCRIPT_NAME"], "/app")
            self.assertEqual(environ["PATH_INFO"], path)
            self.assertEqual(environ["REQUEST_URI"], target)

    def test_prefix_of_other_characters(self) -> None:
        """Prefix and path are the bytes of the URL as latin-1 (PEP 3333)."""
        server = self.serve(echo, prefix="/caf\xe9")
        self.assert_complete(server.begin(target="/caf%C3%A9/x"), b"")
        [environ] = server.app.environs
        self.assertEqual(environ["SCRIPT_NAME"], "/caf\xc3\xa9")
        self.assertEqual(environ["PATH_INFO"], "/x")


class WebAsteriskCases(Cases):
    """OPTIONS * over twisted.web."""

    def test_asterisk(self) -> None:
        """twisted.web itself answers OPTIONS *, which belongs to no resource."""
        server = self.serve(echo)
        self.assert_complete(server.begin("OPTIONS", "*"), b"")
        self.assertEqual(server.app.environs, [])


class AbsoluteTargetCases(Cases):
    """Targets that exist only in HTTP/1.1 and that twisted.web does not resolve."""

    def test_absolute_form(self) -> None:
        """A target in absolute form is reduced to its path (RFC 9112 section 3.2.2)."""
        server = self.serve(echo)
        self.assert_complete(server.begin(target="http://test.example/a%20b?c"))
        environ = server.app.environs[0]
        self.assertEqual(environ["PATH_INFO"], "/a b")
        self.assertEqual(environ["QUERY_STRING"], "c")
        self.assertEqual(environ["REQUEST_URI"], "http://test.example/a%20b?c")


class TreeCases(Cases):
    """A resource below the root of twisted.web's tree."""

    def test_script_name(self) -> None:
        """SCRIPT_NAME is the path of the resource, PATH_INFO the rest."""
        server = self.serve(echo)
        assert isinstance(server, WebTransport)
        root, below = Resource(), Resource()
        root.putChild(b"below", below)
        below.putChild(b"an app", server.resource)
        server.serve_tree(root)
        for target, path in [
            ("/below/an%20app", ""),
            ("/below/an%20app/", "/"),
            ("/below/an%20app/x/y%20z?q", "/x/y z"),
        ]:
            server.app.environs.clear()
            self.assert_complete(server.begin(target=target), b"")
            environ = server.app.environs[0]
            self.assertEqual(environ["SCRIPT_NAME"], "/below/an app")
            self.assertEqual(environ["PATH_INFO"], path)
            self.assertEqual(environ["REQUEST_URI"], target)


globals().update(on_every_transport(EnvironCases, InputCases))
globals().update(on_every_transport(StreamedInputCases, only=STREAMING))
globals().update(on_every_transport(AbsoluteTargetCases, only=OWN_HTTP1))
globals().update(on_every_transport(TreeCases, only=WEB))
globals().update(on_every_transport(AsteriskCases, only=OWN))
globals().update(on_every_transport(PrefixCases, only=OWN))
globals().update(on_every_transport(WebAsteriskCases, only=WEB))
