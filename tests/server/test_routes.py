"""Each route of the test application, requested in many ways."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, NamedTuple

from .application import application, validated
from .wire import WireTestCase, chunked, get, post

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryClient, MemoryServer

    from .wire import App


class Case(NamedTuple):
    """A request, and its expected response."""

    request: bytes
    body: bytes
    status: int = 200
    method: str = "GET"
    checked: bool = True
    """Whether it passes the standard library's checker."""


CASES: dict[str, Case] = {
    "a block in a list": Case(get("/"), b"hello\n"),
    "several blocks": Case(get("/blocks"), b"one\ntwo\nthree\n"),
    "no block": Case(get("/empty"), b""),
    "a stream": Case(get("/stream?count=3&size=2"), b"AABBCC"),
    "a stream of large blocks": Case(
        get("/stream?count=2&size=70000"), b"A" * 70000 + b"B" * 70000
    ),
    "a stream with a length": Case(get("/with-length"), b"fourmore"),
    "write(), then a block": Case(get("/written"), b"one\ntwo\nthree\n"),
    "empty blocks before start_response": Case(get("/late"), b"late\n", checked=False),
    "a file that is none": Case(get("/memory-file"), b"in memory\n"),
    "no such route": Case(get("/nowhere"), b"no such route\n", 404),
    "204": Case(get("/no-content"), b"", 204),
    "304": Case(get("/not-modified"), b"", 304),
    "HEAD": Case(get("/", method="HEAD"), b"", 200, "HEAD"),
    "HEAD of a stream": Case(get("/stream", method="HEAD"), b"", 200, "HEAD"),
    "HEAD of write()": Case(get("/written", method="HEAD"), b"", 200, "HEAD"),
    "a body by length": Case(post("/echo", b"abc\r\n\r\ndef"), b"abc\r\n\r\ndef"),
    "a large body": Case(post("/echo", b"0123456789" * 9000), b"0123456789" * 9000),
    "an empty body": Case(post("/echo", b""), b""),
    "a chunked body": Case(chunked("/echo", b"abc", b"de" * 300), b"abc" + b"de" * 300),
    "a chunked body with trailers": Case(
        chunked("/echo", b"abc", trailers=b"X-Sum: 1\r\n"), b"abc"
    ),
    "a body read in slices": Case(
        post("/echo-slices?size=3", b"0123456789"), b"0123456789"
    ),
    "a chunked body read in slices": Case(
        chunked("/echo-slices?size=3", b"0", b"1234", b"56789"), b"0123456789"
    ),
    "lines of a body": Case(
        post("/lines", b"one\ntwo\n\nend"), b"[one\n][two\n][\n][end]"
    ),
    "a body that is not read": Case(post("/unread", b"0123456789"), b"no\n", 403),
    "a chunked body that is not read": Case(chunked("/unread", b"01"), b"no\n", 403),
}


class RouteTests(WireTestCase):
    """The application itself."""

    app: App = staticmethod(application)

    def served(self) -> MemoryServer:
        """Return a server of the application."""
        return self.serve(self.app)

    def cases(self) -> dict[str, Case]:
        """Return the cases that this application supports."""
        return CASES

    def check(self, name: str, client: MemoryClient) -> None:
        """Fail unless the client has the response."""
        case = self.cases()[name]
        response = self.only(client, case.method)
        self.assertEqual(
            (response.status, response.body), (case.status, case.body), name
        )

    def test_whole(self) -> None:
        """A request that arrives in one piece gets its response."""
        for name, case in self.cases().items():
            client = self.served().connect()
            client.send(case.request)
            self.check(name, client)

    def test_byte_by_byte(self) -> None:
        """A request that arrives byte by byte gets the same response."""
        for name, case in self.cases().items():
            if len(case.request) < 2000:
                client = self.served().connect()
                client.send(case.request, 1)
                self.check(name, client)

    def test_slow_reader(self) -> None:
        """A client that reads a few bytes at a time gets the same response."""
        for name, case in self.cases().items():
            client = self.served().connect(room=1000)
            client.send(case.request)
            while client.read(997):
                pass
            self.check(name, client)

    def test_one_connection(self) -> None:
        """Requests one after the other on a connection are answered in order."""
        client = self.served().connect()
        for case in self.cases().values():
            client.send(case.request)
        self.check_all(client)

    def test_pipelined(self) -> None:
        """Pipelined requests are answered in order (RFC 9112 section 9.3.2)."""
        client = self.served().connect()
        client.send(b"".join(case.request for case in self.cases().values()))
        self.check_all(client)

    def test_pipelined_in_pieces(self) -> None:
        """Pipelined requests may be split anywhere."""
        client = self.served().connect()
        client.send(b"".join(case.request for case in self.cases().values()), 1009)
        self.check_all(client)

    def check_all(self, client: MemoryClient) -> None:
        """Fail unless the client has all responses, in order."""
        cases = list(self.cases().values())
        responses = client.responses([case.method for case in cases])
        self.assertEqual(
            [(response.status, response.body) for response in responses],
            [(case.status, case.body) for case in cases],
        )
        self.assertFalse(client.closed)

    def test_http_1_0(self) -> None:
        """An HTTP/1.0 client gets the same bodies, unchunked, and then the end."""
        for name, case in self.cases().items():
            if b"Transfer-Encoding" in case.request:
                continue  # HTTP/1.0 has no chunks
            client = self.served().connect()
            client.send(case.request.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"))
            self.check(name, client)
            self.assertNotIn(b"Transfer-Encoding", client.received)
            self.assertTrue(client.closed, name)
            self.assertFalse(client.reset, name)

    def test_close(self) -> None:
        """Requests with `Connection: close` get it back (RFC 9112 section 9.6)."""
        for name, case in self.cases().items():
            client = self.served().connect()
            client.send(case.request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self.check(name, client)
            response = client.responses([case.method])[0]
            self.assertEqual(response.header("Connection"), "close", name)
            self.assertTrue(client.closed, name)

    def test_file(self) -> None:
        """A file is sent from its position to its end."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"0123456789" * 20000)
            file.flush()
            client = self.served().connect()
            client.send(get(f"/file?path={file.name}&offset=3"))
            self.assertEqual(self.only(client).body, (b"0123456789" * 20000)[3:])


class CheckedRouteTests(RouteTests):
    """The application inside `wsgiref.validate`, which checks PEP 3333."""

    app = staticmethod(validated)

    def cases(self) -> dict[str, Case]:
        """Return the cases that this application supports."""
        return {name: case for name, case in CASES.items() if case.checked}


class StrictRouteTests(RouteTests):
    """The application under the setting `strict`, which keeps every feature."""

    def served(self) -> MemoryServer:
        """Return a strict server of the application."""
        return self.serve(self.app, strict=True)

    def cases(self) -> dict[str, Case]:
        """Return the cases that conform to PEP 3333."""
        late = "empty blocks before start_response"
        return {name: case for name, case in CASES.items() if name != late}
