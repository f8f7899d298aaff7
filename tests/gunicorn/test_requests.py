"""Requests and responses for gunicorn's hooks and its access log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._gunicorn.requests import Requests, WorkerRequest, WorkerResponse
from txgreenwsgi._gunicorn.schemes import ForwardedScheme
from txgreenwsgi.testing import MemoryServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BLOCKS = [b"ab", b"c"]
FIELDS = {"X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"}


def view(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer, fail, or replace the response."""
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("the view fails")
    start_response("201 Made", [("Content-Length", "3"), ("X-Kind", "test")])
    if path == "/replace":
        try:
            raise ValueError
        except ValueError:
            start_response("418 Other", [("Content-Length", "3")], sys.exc_info())
    return BLOCKS


class RequestsTests(SynchronousTestCase):
    """`Requests` in a server in memory."""

    def serve(
        self, pre_request: Callable[[WorkerRequest], object] | None = None
    ) -> MemoryServer:
        """Return a server whose access log and hook are recorded."""
        self.logged: list[tuple[WorkerResponse, Any, WSGIEnvironment, timedelta]] = []
        self.posted: list[tuple[Any, WSGIEnvironment, WorkerResponse]] = []
        requests = Requests(
            lambda *each: self.logged.append(each),
            pre_request,
            lambda *each: self.posted.append(each),
        )
        server = MemoryServer(requests.wrap(view), observers=[requests.observe])
        self.addCleanup(server.close)
        return server

    def test_request(self) -> None:
        """The hook and the log get request, environ and response."""
        seen: list[WorkerRequest] = []
        server = self.serve(seen.append)
        server.request("GET", "/a?b=c", [("X-Test", "yes")])
        (request,) = seen
        self.assertEqual(
            (request.method, request.uri, request.path, request.query),
            ("GET", "/a?b=c", "/a", "b=c"),
        )
        self.assertEqual(request.version, (1, 1))
        self.assertIn(("X-TEST", "yes"), request.headers)
        ((response, logged, environ, duration),) = self.logged
        self.assertIs(logged, request)
        self.assertEqual(environ["PATH_INFO"], "/a")
        self.assertEqual((response.status, response.status_code), ("201 Made", 201))
        self.assertIn(("X-Kind", "test"), response.headers)
        self.assertEqual((response.sent, response.response_length), (3, 3))
        self.assertEqual(duration.total_seconds(), 0)
        self.assertEqual(self.posted, [(request, environ, response)])

    def test_replaced_response(self) -> None:
        """The second call of start_response counts."""
        self.assertEqual(self.serve().request("GET", "/replace").status, 418)
        self.assertEqual(self.logged[0][0].status, "418 Other")

    def test_failure(self) -> None:
        """The server's own response is logged in the place of the application's."""
        self.assertEqual(self.serve().request("GET", "/fail").status, 500)
        self.flushLoggedErrors(ValueError)
        response = self.logged[0][0]
        self.assertEqual(response.status, "500 Internal Server Error")
        self.assertEqual(response.headers, [])
        self.assertEqual(len(self.posted), 1)

    def test_iterable(self) -> None:
        """The application's iterable reaches the server as it is."""
        for requests in (
            Requests(None, lambda request: None, None),
            Requests(lambda *each: None, None, None),
        ):
            environ = {
                "REQUEST_METHOD": "GET",
                "RAW_URI": "/",
                "PATH_INFO": "/",
                "QUERY_STRING": "",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "REMOTE_ADDR": "",
                "wsgi.url_scheme": "http",
                "txgreenwsgi.request_id": "1",
            }
            blocks = requests.wrap(view)(environ, lambda *each: lambda data: None)
            self.assertIs(blocks, BLOCKS)

    def test_nothing_to_observe(self) -> None:
        """Without hooks and log, the application is not wrapped."""
        requests = Requests(None, None, None)
        self.assertFalse(requests.observes)
        self.assertIs(requests.wrap(view), view)


class SchemeTests(SynchronousTestCase):
    """`ForwardedScheme`."""

    def scheme(self, address: str, **variables: str) -> str:
        """Return the scheme that the application sees; "" if it is not called."""
        environ: dict[str, Any] = {
            "REMOTE_ADDR": address,
            "wsgi.url_scheme": "http",
            **variables,
        }
        seen = [""]

        def app(environ: Any, start_response: Any) -> list[bytes]:
            seen[0] = environ["wsgi.url_scheme"]
            return []

        statuses: list[str] = []
        middleware = ForwardedScheme(app, ["127.0.0.1", "10.0.0.0/8"], FIELDS)
        middleware(environ, lambda status, *rest: statuses.append(status))  # type: ignore[arg-type]
        if statuses:
            self.assertEqual(statuses, ["400 Bad Request"])
        return seen[0]

    def test_trusted(self) -> None:
        """A trusted peer decides; UNIX sockets are trusted."""
        for address in ("127.0.0.1", "10.1.2.3", ""):
            self.assertEqual(
                self.scheme(address, HTTP_X_FORWARDED_PROTO="https"), "https"
            )
        self.assertEqual(self.scheme("", HTTP_X_FORWARDED_PROTO="http"), "http")
        self.assertEqual(self.scheme("", HTTP_X_FORWARDED_SSL="on"), "https")

    def test_untrusted(self) -> None:
        """Other peers do not."""
        self.assertEqual(
            self.scheme("192.0.2.1", HTTP_X_FORWARDED_PROTO="https"), "http"
        )

    def test_contradiction(self) -> None:
        """Fields that contradict each other get 400."""
        self.assertEqual(
            self.scheme("", HTTP_X_FORWARDED_PROTO="https", HTTP_X_FORWARDED_SSL="off"),
            "",
        )
