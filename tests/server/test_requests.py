"""Requests: the environ of the application, or a refusal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .application import application
from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .application import Environ, Start

NEXT = get("/next")

#: Invalid bytes, and the status of the response. Bytes after them are ignored.
REFUSED: dict[str, tuple[bytes, int]] = {
    "HTTP/1.1 without Host (RFC 9112 section 3.2)": (
        b"GET / HTTP/1.1\r\n\r\n",
        400,
    ),
    "two Host fields (RFC 9112 section 3.2)": (get("/", "Host: other"), 400),
    "a Host that is none (RFC 9112 section 3.2)": (
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        400,
    ),
    "Transfer-Encoding with Content-Length (RFC 9112 section 6.1)": (
        get("/", "Transfer-Encoding: chunked", "Content-Length: 5", method="POST"),
        400,
    ),
    "Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1)": (
        get("/", "Transfer-Encoding: chunked", method="POST", version="HTTP/1.0"),
        400,
    ),
    "a coding that we do not have (RFC 9112 section 6.1)": (
        get("/", "Transfer-Encoding: gzip, chunked", method="POST"),
        501,
    ),
    "a last coding other than chunked (RFC 9112 section 6.3)": (
        get("/", "Transfer-Encoding: chunked, gzip", method="POST"),
        400,
    ),
    "Content-Length with a sign (RFC 9110 section 8.6)": (
        get("/", "Content-Length: +3", method="POST"),
        400,
    ),
    "Content-Length twice in one field (RFC 9110 section 8.6)": (
        get("/", "Content-Length: 3,3", method="POST"),
        400,
    ),
    "two Content-Length fields (RFC 9112 section 6.3)": (
        get("/", "Content-Length: 3", "Content-Length: 3", method="POST"),
        400,
    ),
    "Content-Length in hexadecimal (RFC 9110 section 8.6)": (
        get("/", "Content-Length: 0x3", method="POST"),
        400,
    ),
    "Content-Length with a space in it (RFC 9110 section 8.6)": (
        get("/", "Content-Length:  3 4", method="POST"),
        400,
    ),
    "space before the colon (RFC 9112 section 5.1)": (get("/", "X-Foo : 1"), 400),
    "a folded field (RFC 9112 section 5.2)": (get("/", "X-Foo: 1", " 2"), 400),
    "NUL in a value (RFC 9110 section 5.5)": (get("/", "X-Foo: a\0b"), 400),
    "CR in a value (RFC 9110 section 5.5)": (get("/", "X-Foo: a\rb"), 400),
    "LF alone as the end of a line (RFC 9112 section 2.2)": (
        b"GET / HTTP/1.1\nHost: test\n\n",
        400,
    ),
    "a name that is no token (RFC 9110 section 5.6.2)": (get("/", "X(Foo): 1"), 400),
    "a method that is no token (RFC 9110 section 9.1)": (get("/", method="G(T"), 400),
    "a method of 257 characters (RFC 9112 section 3)": (
        get("/", method="x" * 257),
        501,
    ),
    "a tunnel (RFC 9110 section 9.3.6)": (get("test:80", method="CONNECT"), 501),
    "a fragment in the target (RFC 9112 section 3.2)": (get("/#there"), 400),
    "another version (RFC 9110 section 2.5)": (get("/", version="HTTP/2.0"), 505),
    "the preface of HTTP/2 (RFC 9113 section 3.4)": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        505,
    ),
    "HTTP/0.9 (RFC 9112 section 3)": (b"GET /\r\n", 400),
    "an expectation that we do not know (RFC 9110 section 10.1.1)": (
        get("/", "Expect: the unexpected"),
        417,
    ),
}

#: Invalid chunked bodies, which the application reads.
BAD_CHUNKS: dict[str, bytes] = {
    "a size with a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with an underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "a size with a space": b"3 \r\nabc\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"f0000000000000003\r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "a size line that ends by LF": b"3\nabc\r\n0\r\n\r\n",
    "data that is longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "data without its CRLF": b"3\r\nabc0\r\n\r\n",
    "extensions that have no end": b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
    "a trailer that is none": b"0\r\nno colon\r\n\r\n",
}


class RefusalTests(WireTestCase):
    """Bytes that are not a valid request."""

    def test_refused(self) -> None:
        """Invalid bytes get one response, and the connection closes."""
        for name, (request, status) in REFUSED.items():
            server = self.recorded(application)
            client = server.connect()
            client.send(request + NEXT)
            response = self.only(client)
            self.assertEqual(response.status, status, name)
            self.assertEqual(response.header("Connection"), "close", name)
            self.assertTrue(client.closed, name)
            client.send(NEXT)
            self.assertEqual(len(client.responses()), 1, name)

    def test_refused_behind_a_good_one(self) -> None:
        """A valid request before them is answered first."""
        for name, (request, status) in REFUSED.items():
            client = self.connected(application)
            client.send(get("/blocks") + request + NEXT)
            self.assertEqual(
                [each.status for each in client.responses()], [200, status], name
            )

    def test_refused_while_a_good_one_waits(self) -> None:
        """It is answered first even if it takes its time."""
        server = self.recorded(application)
        client = server.connect()
        client.send(get("/sleep") + get("/", "X-Foo : 1") + NEXT)
        self.assertEqual(client.received, b"")
        server.advance(1)
        self.assertEqual([each.status for each in client.responses()], [200, 400])
        self.assertTrue(client.closed)

    def test_logged(self) -> None:
        """A refusal is logged with its reason, and observers get a record of it."""
        client = self.connected(application)
        client.send(get("/", "Content-Length: 3,3"))
        self.assert_logged("request refused: 192.0.2.1: 400", "not a number")
        self.assertEqual(self.outcomes(), [(400, "refused")])
        self.assertEqual(self.records[0].bytes_sent, len(self.only(client).body))
        self.assertEqual(self.records[0].remote_addr, "192.0.2.1")

    def test_bad_chunks(self) -> None:
        """An invalid chunked body gets 400, and bytes behind it are ignored."""
        for name, body in BAD_CHUNKS.items():
            client = self.connected(application)
            head = get("/echo", "Transfer-Encoding: chunked", method="POST")
            client.send(head + body + NEXT)
            self.assertEqual(self.only(client).status, 400, name)
            self.assertTrue(client.closed, name)

    def test_bad_chunks_while_it_reads(self) -> None:
        """The same holds when the application already waits for the body."""
        for name, body in BAD_CHUNKS.items():
            client = self.connected(application)
            client.send(get("/echo", "Transfer-Encoding: chunked", method="POST"))
            client.send(body + NEXT, 1)
            self.assertEqual(self.only(client).status, 400, name)
            self.assertTrue(client.closed, name)

    def test_bad_chunks_without_a_read(self) -> None:
        """Streamed without a read, the application responds, and the server closes."""
        for name, body in BAD_CHUNKS.items():
            client = self.connected(application, chunked="stream")
            head = get("/unread", "Transfer-Encoding: chunked", method="POST")
            client.send(head + body + NEXT)
            response = self.only(client)
            self.assertEqual((response.status, response.body), (403, b"no\n"), name)
            self.assertTrue(client.closed, name)

    def test_limits(self) -> None:
        """A head beyond the limits gets 414 or 431 before all of it has come."""
        sizes = {"max_target": 64, "max_header_size": 1024, "max_headers": 5}
        for part, status in (
            (b"GET /" + b"a" * 100, 414),
            (get("/")[:-2] + b"X: " + b"a" * 2000, 431),
            (get("/", *["X: 1"] * 6), 431),
        ):
            client = self.connected(application, **sizes)
            client.send(part)
            self.assertEqual(self.only(client).status, status)
            self.assertTrue(client.closed)


class EnvironTests(WireTestCase):
    """The environ (PEP 3333, "environ Variables")."""

    def environ(self, request: bytes, **settings: Any) -> dict[str, str]:
        """Return the environ of a request; values that are no strings as repr()."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            return application({**environ, "PATH_INFO": "/environ"}, start)

        self.path = ""

        def telling(environ: Environ, start: Start) -> Iterable[bytes]:
            self.assertIs(type(environ), dict)
            self.path = environ["PATH_INFO"]
            return app(environ, start)

        client = self.connected(telling, **settings)
        client.send(request)
        found: dict[str, str] = json.loads(self.only(client).body)
        return {**found, "PATH_INFO": self.path}

    def test_keys(self) -> None:
        """All keys of PEP 3333 and RFC 3875 are there, and none is empty."""
        environ = self.environ(get("/a%20b?c=%20&d"))
        self.assertEqual(environ["REQUEST_METHOD"], "GET")
        self.assertEqual(environ["SCRIPT_NAME"], "")
        self.assertEqual(environ["PATH_INFO"], "/a b")
        self.assertEqual(environ["QUERY_STRING"], "c=%20&d")
        self.assertEqual(environ["RAW_URI"], "/a%20b?c=%20&d")
        self.assertEqual(environ["REQUEST_URI"], "/a%20b?c=%20&d")
        self.assertEqual(environ["SERVER_NAME"], "127.0.0.1")
        self.assertEqual(environ["SERVER_PORT"], "8080")
        self.assertEqual(environ["SERVER_PROTOCOL"], "HTTP/1.1")
        self.assertEqual(environ["SERVER_SOFTWARE"], "txgreenwsgi")
        self.assertEqual(environ["GATEWAY_INTERFACE"], "CGI/1.1")
        self.assertEqual(environ["REMOTE_ADDR"], "192.0.2.1")
        self.assertEqual(environ["REMOTE_PORT"], "4321")
        self.assertEqual(environ["HTTP_HOST"], "test")
        self.assertEqual(environ["wsgi.version"], "(1, 0)")
        self.assertEqual(environ["wsgi.url_scheme"], "http")
        self.assertEqual(environ["wsgi.multithread"], "True")
        self.assertEqual(environ["wsgi.multiprocess"], "False")
        self.assertEqual(environ["wsgi.run_once"], "False")
        self.assertEqual(environ["wsgi.input_terminated"], "True")

    def test_nothing_of_a_request_is_left_for_the_next(self) -> None:
        """Each request has an environ of its own."""
        seen: list[Environ] = []

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            seen.append(dict(environ))
            environ["mine"] = environ["HTTP_X_ONE"] = "1"
            return application(environ, start)

        client = self.connected(app)
        client.send(get("/", "X-One: 1") + get("/"))
        self.assertNotIn("mine", seen[1])
        self.assertNotIn("HTTP_X_ONE", seen[1])

    def test_one_at_a_time(self) -> None:
        """wsgi.multithread is False if requests never run concurrently."""
        environ = self.environ(get("/"), max_in_flight=1)
        self.assertEqual(environ["wsgi.multithread"], "False")

    def test_content(self) -> None:
        """CONTENT_TYPE and CONTENT_LENGTH have no HTTP_ duplicates."""
        environ = self.environ(post("/", b"abc", "Content-Type: a/b"))
        self.assertEqual(environ["CONTENT_TYPE"], "a/b")
        self.assertEqual(environ["CONTENT_LENGTH"], "3")
        self.assertNotIn("HTTP_CONTENT_TYPE", environ)
        self.assertNotIn("HTTP_CONTENT_LENGTH", environ)

    def test_underscore(self) -> None:
        """A field with an underscore cannot replace one with a hyphen."""
        environ = self.environ(get("/", "X_Foo: evil", "X-Bar: good", "X_Bar: evil"))
        self.assertNotIn("HTTP_X_FOO", environ)
        self.assertEqual(environ["HTTP_X_BAR"], "good")

    def test_proxy(self) -> None:
        """A Proxy field does not become HTTP_PROXY, which HTTP clients obey."""
        self.assertNotIn("HTTP_PROXY", self.environ(get("/", "Proxy: evil")))

    def test_several_of_one_name(self) -> None:
        """Cookies are joined by "; ", other fields by ", " (RFC 9110 section 5.3)."""
        environ = self.environ(
            get("/", "Cookie: a=1", "Accept: x", "cookie: b=2", "accept: y")
        )
        self.assertEqual(environ["HTTP_COOKIE"], "a=1; b=2")
        self.assertEqual(environ["HTTP_ACCEPT"], "x, y")

    def test_absolute_form(self) -> None:
        """An absolute target is split into PATH_INFO and HTTP_HOST."""
        environ = self.environ(get("http://other:81/p%41?q"))
        self.assertEqual(environ["PATH_INFO"], "/pA")
        self.assertEqual(environ["QUERY_STRING"], "q")
        self.assertEqual(environ["HTTP_HOST"], "other:81")

    def test_asterisk(self) -> None:
        """PATH_INFO of `OPTIONS *` is empty."""
        environ = self.environ(get("*", method="OPTIONS"))
        self.assertEqual(environ["PATH_INFO"], "")
        self.assertEqual(environ["REQUEST_URI"], "*")

    def test_latin_1(self) -> None:
        """Bytes become latin-1 characters (PEP 3333, "Unicode Issues")."""
        environ = self.environ(get("/%C3%A9", "X-Name: \xc3\xa9"))
        self.assertEqual(environ["PATH_INFO"].encode("latin-1"), "/\xe9".encode())
        self.assertEqual(environ["HTTP_X_NAME"].encode("latin-1"), "\xe9".encode())

    def test_upgrade_is_ignored(self) -> None:
        """An offer to upgrade is ignored: the response is HTTP/1.1."""
        fields = ("Connection: upgrade", "Upgrade: websocket")
        environ = self.environ(get("/", *fields))
        self.assertEqual(environ["HTTP_UPGRADE"], "websocket")

    def test_deployers_variables(self) -> None:
        """The deployer's variables override the client's."""
        pairs = [("X_SITE", "one"), ("HTTP_HOST", "site"), ("SERVER_NAME", "public")]
        environ = self.environ(get("/"), environ=pairs)
        self.assertEqual(environ["X_SITE"], "one")
        self.assertEqual(environ["HTTP_HOST"], "site")
        self.assertEqual(environ["SERVER_NAME"], "public")

    def test_scheme(self) -> None:
        """The deployer can set wsgi.url_scheme, for a proxy."""
        environ = self.environ(get("/"), url_scheme="https")
        self.assertEqual(environ["wsgi.url_scheme"], "https")

    def test_extensions(self) -> None:
        """The server's functions have lower-case names of their own."""
        environ = self.environ(get("/"))
        for name in (
            *("current_task", "poll", "recv", "select", "shield", "sleep", "spawn"),
            *("suspend", "timeout", "wait", "wait_readable", "wait_writable"),
            *("client_disconnected", "request_id", "requests", "set_request_timeout"),
            "stopping",
        ):
            self.assertIn(f"txgreenwsgi.{name}", environ)
        self.assertIn("waitress.client_disconnected", environ)
