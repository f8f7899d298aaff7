"""Tests of `environ_of`, and of plain responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._serving.environ import environ_of
from txgreenwsgi._serving.plain_response import plain_response

from .memory_stream import ENDS, request_head

if TYPE_CHECKING:
    from txgreenwsgi._http.head import RequestHead


def made(
    head: RequestHead, shared: dict[str, Any] | None = None, observers: int = 0
) -> dict[str, Any]:
    """Return the environ of a request with a number of observers."""
    return environ_of(shared or {}, head, ENDS, range(observers))


class EnvironTests(SynchronousTestCase):
    """`environ_of`."""

    def test_request(self) -> None:
        """The environ has the request line, both ends, and the variables."""
        environ = made(request_head("PUT", "/a%20b", HTTP_ACCEPT="*/*"))
        self.assertEqual(
            environ,
            {
                "HTTP_ACCEPT": "*/*",
                "PATH_INFO": "/a%20b",
                "QUERY_STRING": "",
                "RAW_URI": "/a%20b",
                "REMOTE_ADDR": "192.0.2.1",
                "REMOTE_PORT": "4321",
                "REQUEST_METHOD": "PUT",
                "REQUEST_URI": "/a%20b",
                "SERVER_NAME": "server.test",
                "SERVER_PORT": "8080",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "wsgi.url_scheme": "http",
            },
        )

    def test_shared_part(self) -> None:
        """The shared part is copied; the request's variables override it."""
        shared = {"a": "shared", "HTTP_ACCEPT": "shared"}
        environ = made(request_head(HTTP_ACCEPT="own"), shared)
        self.assertEqual((environ["a"], environ["HTTP_ACCEPT"]), ("shared", "own"))
        environ["a"] = "changed"
        self.assertEqual(shared, {"a": "shared", "HTTP_ACCEPT": "shared"})

    def test_asterisk(self) -> None:
        """PATH_INFO of `OPTIONS *` is empty (RFC 9112 section 3.2.4)."""
        environ = made(request_head("OPTIONS", "*"))
        self.assertEqual(environ["PATH_INFO"], "")
        self.assertEqual(environ["REQUEST_URI"], "*")

    def test_prefix(self) -> None:
        """The prefix is removed from the paths below it, at a segment boundary."""
        shared = {"SCRIPT_NAME": "/a/b"}
        for path, below in {
            "/a/b/c": "/c",
            "/a/b/": "/",
            "/a/b": "",
            "/a/b//c": "//c",
            "/a/b/a/b/c": "/a/b/c",
            "/a/bc": "/a/bc",
            "/A/b/c": "/A/b/c",
            "/c": "/c",
            "/": "/",
        }.items():
            environ = made(request_head("GET", path), shared)
            self.assertEqual(environ["PATH_INFO"], below)
            self.assertEqual(environ["SCRIPT_NAME"], "/a/b")
            self.assertEqual(environ["REQUEST_URI"], path)
        self.assertEqual(made(request_head("OPTIONS", "*"), shared)["PATH_INFO"], "")

    def test_variables_of_the_head(self) -> None:
        """The head keeps only the variables of its record, and only for observers."""
        fields: dict[str, Any] = {
            "HTTP_REFERER": "a",
            "HTTP_USER_AGENT": "b",
            "HTTP_ACCEPT": "c",
        }
        for observers, kept in (
            (0, {}),
            (1, {"HTTP_REFERER": "a", "HTTP_USER_AGENT": "b"}),
        ):
            head = request_head(**fields)
            environ = made(head, None, observers)
            self.assertEqual(head.variables, kept)
            self.assertEqual({name: environ[name] for name in fields}, fields)
        head = request_head(HTTP_ACCEPT="c")
        made(head, None, 1)
        self.assertEqual(head.variables, {})


class PlainResponseTests(SynchronousTestCase):
    """`plain_response`."""

    def test_body(self) -> None:
        """The body is UTF-8 and ends with one newline; its length is declared."""
        for text in ("no sl\u00f6t", "no sl\u00f6t\n\n"):
            head, body = plain_response("503 Service Unavailable", text)
            self.assertEqual(body, b"no sl\xc3\xb6t\n")
            self.assertEqual(head.code, 503)
            self.assertEqual(
                head.fields(),
                [
                    (b"Content-Type", b"text/plain; charset=utf-8"),
                    (b"Content-Length", b"9"),
                ],
            )

    def test_text_that_cannot_be_encoded(self) -> None:
        """Characters that UTF-8 cannot encode are replaced."""
        self.assertEqual(plain_response("500 X", "\ud800")[1], b"?\n")

    def test_retry_after(self) -> None:
        """Retry-After is sent where seconds are given."""
        head, _ = plain_response("503 Service Unavailable", "full", 7)
        self.assertIn((b"Retry-After", b"7"), head.fields())
