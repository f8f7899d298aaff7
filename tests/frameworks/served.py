"""Werkzeug's test client with its requests sent through the server in memory.

An environ made by a test is encoded as an HTTP request and passes through the channel,
the parser, a task and the gateway. The application gets the server's environ, and the
test gets the server's response. Values that HTTP cannot carry (another SERVER_NAME,
keys of the test) are copied from the test's environ.

This file knows Werkzeug's client. It must never know the tests.
"""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from txgreenwsgi import current_task
from txgreenwsgi.testing import MemoryServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    Ran = tuple[Iterable[bytes], str, Any]

__all__ = ["counts", "serve_test_clients"]

#: Number of requests that were served and that could not be.
counts: Counter[str] = Counter()

#: Response fields that the server adds, the framing included.
_OF_THE_SERVER: tuple[str, ...] = ("connection", "date", "server", "transfer-encoding")
_FROM_THE_WIRE = (
    *("CONTENT_LENGTH", "CONTENT_TYPE", "QUERY_STRING", "REQUEST_METHOD"),
    "wsgi.input",
)


class _NotExpressible(Exception):
    """HTTP cannot express the request: the test is about the client itself."""


def _is_token(text: str) -> bool:
    return text.isascii() and text.replace("-", "").replace("_", "").isalnum()


def _request(environ: WSGIEnvironment) -> bytes:
    stream: Any = environ.get("wsgi.input")
    if not hasattr(stream, "seek") or "HTTP_HOST" not in environ:
        raise _NotExpressible
    place = stream.tell()
    body: bytes = stream.read()
    stream.seek(place)  # a redirect sends the body again
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    target = quote(path.encode("latin-1"), safe="/%:@!$&'()*+,;=~") or "/"
    if not target.startswith("/") or not _is_token(environ["REQUEST_METHOD"]):
        raise _NotExpressible
    target = target.replace("%", "%25") if "%" in path else target
    if environ.get("QUERY_STRING"):
        target += f"?{environ['QUERY_STRING']}"
    lines = [f"{environ['REQUEST_METHOD']} {target} HTTP/1.1"]
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key.removeprefix("HTTP_").replace("_", "-")
            if not _is_token(name) or "\n" in value or name in ("CONNECTION", "EXPECT"):
                raise _NotExpressible
            lines.append(f"{name}: {value}")
    if environ.get("CONTENT_TYPE"):
        lines.append(f"Content-Type: {environ['CONTENT_TYPE']}")
    length = environ.get("CONTENT_LENGTH", "")
    if "HTTP_TRANSFER_ENCODING" in environ:
        if environ["HTTP_TRANSFER_ENCODING"] != "chunked" or length:
            raise _NotExpressible
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif length or body:
        if length != str(len(body)):
            raise _NotExpressible
        lines.append(f"Content-Length: {length}")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    except UnicodeEncodeError:
        raise _NotExpressible from None


class _Watched:
    """Wraps an application: records its error and merges the test's environ.

    Attributes:
        error: the exception that the application raised.
        has_length: whether the response has a Content-Length.
    """

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        self._app = app
        self._environ = environ
        self.error: BaseException | None = None
        self.has_length = False

    def __call__(
        self, served: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes]:
        requested = {
            k: v for k, v in self._environ.items() if not k.startswith("HTTP_")
        }
        wire = {
            key: value
            for key, value in served.items()
            if key.startswith("HTTP_") or key in _FROM_THE_WIRE
        }
        environ = {**requested, **wire}

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            self.has_length = any(n.lower() == "content-length" for n, _ in headers)
            return start_response(status, headers, *error)

        try:
            yield from self._blocks(environ, start)
        except GeneratorExit:
            raise  # the server closed the iterable
        except BaseException as error:
            self.error = error
            raise

    def _blocks(self, environ: WSGIEnvironment, start: Any) -> Iterator[bytes]:
        blocks = self._app(environ, start)
        try:
            yield from blocks
        finally:
            close: Callable[[], object] | None = getattr(blocks, "close", None)
            if close is not None:
                close()


class _Body(list[bytes]):
    """The response body in the form that a test expects."""

    def close(self) -> None:
        """Do nothing: the server has closed the iterable."""


def _serve(app: WSGIApplication, environ: WSGIEnvironment, headers: Any) -> Ran:
    request = _request(environ)
    watched = _Watched(app, environ)
    # Limits are not the subject of these tests.
    server = MemoryServer(
        watched,
        max_body=0,
        max_header_size=1_000_000,
        max_target=1_000_000,
        max_headers=1000,
    )
    client = server.connect()
    client.send(request)
    try:
        if watched.error is not None:
            raise watched.error
        (response,) = client.responses([environ["REQUEST_METHOD"]])
        left_out = _OF_THE_SERVER
        if not watched.has_length:
            left_out += ("content-length",)
        fields = [
            (name, value)
            for name, value in response.headers
            if name.lower() not in left_out
        ]
        status = f"{response.status} {response.reason}"
        return _Body([response.body]), status, headers(fields)
    finally:
        server.close()


def serve_test_clients() -> None:
    """Patch Werkzeug's test client, and so Flask's, to use the server."""
    testing: Any = import_module("werkzeug.test")
    headers: Any = import_module("werkzeug.datastructures").Headers
    original = testing.run_wsgi_app

    def run_wsgi_app(app: WSGIApplication, environ: Any, buffered: bool = False) -> Ran:
        # A nested request comes from the application and is not served.
        if current_task() is None:
            try:
                ran: Ran = _serve(app, testing._get_environ(environ).copy(), headers)
            except _NotExpressible:
                counts["not served"] += 1
            else:
                counts["served"] += 1
                return ran
        ran = original(app, environ, buffered)
        return ran

    testing.run_wsgi_app = run_wsgi_app
