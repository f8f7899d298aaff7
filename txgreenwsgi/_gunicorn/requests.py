"""Requests and responses as gunicorn's hooks and access log expect them.

gunicorn passes its own objects to `pre_request`, `post_request` and its logger. Here
they are made from the environ and from the record of the exchange, and only if a hook
or a log needs them.

It knows PEP 3333. It must never know transports.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from txgreenwsgi._http.writer import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi._wsgi.gateway import Application
    from txgreenwsgi.monitoring import ExchangeRecord

__all__ = ["Requests", "WorkerRequest", "WorkerResponse"]

_Headers: TypeAlias = list[tuple[str, str]]


class WorkerRequest:
    """The request, with the attributes of gunicorn's `Request`.

    Args:
        environ: the environ.

    Attributes:
        method: the request method.
        uri: the request target as sent.
        path: the path as sent, without the query.
        query: the query string.
        fragment: "".
        version: such as (1, 1).
        headers: pairs of the name in upper case and the value.
        trailers: empty.
        body: `wsgi.input`.
        scheme: "http" or "https".
        peer_addr: address and port of the client; "" on a UNIX socket.
        remote_addr: the same.
        proxy_protocol_info: None.
    """

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.uri: str = environ["RAW_URI"]
        self.path = self.uri.partition("?")[0]
        self.query: str = environ["QUERY_STRING"]
        self.fragment = ""
        digits = environ["SERVER_PROTOCOL"].rpartition("/")[2].split(".")
        self.version = tuple(int(digit) for digit in digits if digit.isdigit())
        self.headers: _Headers = [
            (name.removeprefix("HTTP_").replace("_", "-"), str(value))
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ]
        self.trailers: _Headers = []
        self.body: Any = environ.get("wsgi.input")
        self.scheme: str = environ["wsgi.url_scheme"]
        address: str = environ["REMOTE_ADDR"]
        self.peer_addr: tuple[str, int] | str = ""
        if address:
            self.peer_addr = (address, int(environ.get("REMOTE_PORT") or 0))
        self.remote_addr = self.peer_addr
        self.proxy_protocol_info: None = None


class WorkerResponse:
    """The response, with the attributes of gunicorn's `Response`.

    Attributes:
        status: such as "200 OK"; "-" if no response was sent.
        status_code: such as 200; None if no response was sent.
        headers: the fields that the application has set.
        sent: size of the body that was sent.
        response_length: the value of Content-Length; None without one.
        headers_sent: whether a response was sent.
    """

    def __init__(self) -> None:
        self.status = "-"
        self.status_code: int | None = None
        self.headers: _Headers = []
        self.sent = 0
        self.response_length: int | None = None
        self.headers_sent = False

    def begin(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        """Take what the application has passed to `start_response`."""
        self.status = status
        self.headers = list(headers)

    def complete(self, record: ExchangeRecord) -> None:
        """Take what was sent in the end."""
        self.sent = record.bytes_sent
        self.headers_sent = record.status > 0
        if not record.status:
            self.status, self.headers = "-", []
            return
        self.status_code = record.status
        if self.status.partition(" ")[0] != str(record.status):
            # The server's own response, in the place of the application's.
            self.headers = []
            self.status = f"{record.status} {reason_of(record.status)}".rstrip()
        for name, value in self.headers:
            if name.lower() == "content-length" and value.isdigit():
                self.response_length = int(value)


def _environ_of(record: ExchangeRecord) -> WSGIEnvironment:
    """Return an environ for a request that did not reach the application."""
    path, _, query = record.target.partition("?")
    return {
        "REQUEST_METHOD": record.method,
        "RAW_URI": record.target,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": record.version,
        "REMOTE_ADDR": record.remote_addr,
        "REMOTE_PORT": record.remote_port,
        "wsgi.url_scheme": "http",
        **({"HTTP_REFERER": record.referer} if record.referer else {}),
        **({"HTTP_USER_AGENT": record.user_agent} if record.user_agent else {}),
    }


class Requests:
    """The requests that hooks and the access log are interested in.

    Args:
        access: writes a line of the access log: gunicorn's `Logger.access`. None
            without an access log.
        pre_request: called with each request in its task, before the application.
        post_request: called with request, environ and response at the end of each
            exchange that has reached the application, in the reactor greenlet.
    """

    def __init__(
        self,
        access: Callable[[Any, Any, WSGIEnvironment, timedelta], object] | None,
        pre_request: Callable[[WorkerRequest], object] | None,
        post_request: Callable[[WorkerRequest, WSGIEnvironment, Any], object] | None,
    ) -> None:
        self._access = access
        self._pre_request = pre_request
        self._post_request = post_request
        self._open: dict[
            str, tuple[WorkerRequest, WSGIEnvironment, WorkerResponse]
        ] = {}

    @property
    def observes(self) -> bool:
        """Whether `observe` has to be called."""
        return self._access is not None or self._post_request is not None

    def wrap(self, application: Application) -> Application:
        """Return an application that keeps the environ and the head of each response.

        The iterable of the application is returned as it is.
        """
        if not self.observes and self._pre_request is None:
            return application

        def observed(
            environ: WSGIEnvironment, start_response: StartResponse
        ) -> Iterable[bytes]:
            request = WorkerRequest(environ)
            if self._pre_request is not None:
                self._pre_request(request)
            if not self.observes:
                return application(environ, start_response)
            response = WorkerResponse()
            self._open[environ["txgreenwsgi.request_id"]] = request, environ, response

            def begin(
                status: str, headers: _Headers, exc_info: Any = None, /
            ) -> Callable[[bytes], object]:
                if exc_info is None:
                    write = start_response(status, headers)
                else:
                    write = start_response(status, headers, exc_info)
                response.begin(status, headers)
                return write

            return application(environ, begin)

        return observed

    def observe(self, record: ExchangeRecord) -> None:
        """Write the access log and call the hook. An observer of the server."""
        found = self._open.pop(record.request_id, None)
        if found is None:
            environ = _environ_of(record)
            request, response = WorkerRequest(environ), WorkerResponse()
        else:
            request, environ, response = found
        response.complete(record)
        if self._access is not None:
            duration = timedelta(seconds=record.duration)
            self._access(response, request, environ, duration)
        if found is not None and self._post_request is not None:
            self._post_request(request, environ, response)
