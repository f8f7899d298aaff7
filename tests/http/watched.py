"""A server in memory whose behaviour is checked against a model.

Its clients send arbitrary data, split arbitrarily. The model parses the same bytes at
once with a parser of its own, and h11 parses them too. Knows the data received and
sent; must never know how the streams are generated.
"""

from __future__ import annotations

import http.client
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from txgreenwsgi.testing import MemoryServer

from .readings import Request, assert_agree, ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.logger import LogEvent

    from txgreenwsgi.testing import MemoryClient

__all__ = ["PATHS", "Wanted", "WatchedClient", "WatchedServer"]

#: Paths of the watched application; their prefix selects its behaviour.
PATHS = ("/", "/early", "/some", "/lines", "/sleep", "/stream", "/write", "/fail")


class Wanted(Exception):
    """The exception that the application raises on purpose."""


@implementer(ILogObserver)
class WatchedServer:
    """A server in memory, its application, and a record of errors and requests.

    Args:
        settings: See `txgreenwsgi.settings`.

    Attributes:
        server: The server in memory.
        clients: All clients since the start, by port.
    """

    def __init__(self, **settings: Any) -> None:
        # The application must see the fields as sent; a body received ahead has others.
        settings.setdefault("chunked", "stream")
        self.server = MemoryServer(self._app, **settings)
        self.clients: dict[str, WatchedClient] = {}
        self._errors: list[str] = []
        globalLogPublisher.addObserver(self)

    def __call__(self, event: LogEvent) -> None:
        """Record an unexpected error from the log (`ILogObserver`)."""
        if event["log_level"] not in (LogLevel.error, LogLevel.critical):
            return
        failure = event.get("log_failure")
        if failure is None or not failure.check(Wanted):
            trace = "" if failure is None else failure.getTraceback()
            self._errors.append(f"{formatEvent(event)}\n{trace}")

    def connect(self, room: float = float("inf")) -> WatchedClient:
        """Connect a new client; see `MemoryServer.connect`."""
        port = str(len(self.clients) + 1)
        client = WatchedClient(self.server.connect(room), port)
        self.clients[port] = client
        return client

    def _app(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        client = self.clients[environ["REMOTE_PORT"]]
        request = _as_seen(environ)
        client.requests.append(request)
        path = environ["PATH_INFO"]
        body = environ["wsgi.input"]
        if path.startswith("/fail"):
            raise Wanted(path)
        if path.startswith("/sleep"):
            environ["txgreenwsgi.sleep"](0.5)
        if path.startswith("/some"):
            body.read(2)
        elif path.startswith("/lines"):
            request.body = b"".join(body)
            request.ended = True
        elif not path.startswith("/early"):
            request.body = body.read()
            request.ended = True
        if path.startswith("/write"):
            write = start_response("200 OK", [("Content-Length", "40000")])
            write(bytes(20000))
            return [bytes(20000)]
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path.startswith("/stream"):
            return _stream(environ["txgreenwsgi.sleep"])
        return [b"%d" % len(client.requests)]

    def check(self) -> None:
        """Fail if an error has been logged or a client has seen wrong behaviour."""
        if self._errors:
            raise AssertionError(
                "unexpected errors in the log: " + "\n".join(self._errors)
            )
        for client in self.clients.values():
            client.check()

    def finish(self) -> None:
        """Finish all requests, then fail on any error or leftover."""
        try:
            for client in self.clients.values():
                client.drain()
            for _ in range(4):
                # Past every deadline.
                self.server.advance(61)
            self.check()
            self.server.close()
            for _ in range(4):
                self.server.advance(61)
            left = [
                *self.server.tasks,
                *self.server.site.server.table.exchanges,
                *self.server.site.server.shutdown.connections,
                *self.server.reactor.getDelayedCalls(),
            ]
            if left:
                raise AssertionError(f"not cleaned up: {left}")
            for client in self.clients.values():
                client.check_against_h11()
        finally:
            globalLogPublisher.removeObserver(self)


class WatchedClient:
    """A client, and its requests as seen by the application.

    Args:
        client: The client in memory.
        port: Its port, by which the application identifies it (REMOTE_PORT).

    Attributes:
        sent: All bytes sent while the connection was open.
        requests: The requests that the application was called for.
        gone: True if the client has closed the connection.
    """

    def __init__(self, client: MemoryClient, port: str) -> None:
        self.client = client
        self.sent = b""
        self.requests: list[Request] = []
        self.gone = False
        client.transport.getPeer = (  # type: ignore[method-assign]
            lambda: IPv4Address("TCP", "192.0.2.1", int(port))
        )

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send these pieces while the connection is open."""
        for piece in pieces:
            if self.gone or self.client.socket.client_closed:
                return
            self.sent += piece
            self.client.send(piece)

    def drain(self) -> None:
        """Read all data from now on."""
        self.client.socket.room = float("inf")
        if not self.gone:
            while self.client.read():
                pass

    def disconnect(self) -> None:
        """Close the connection."""
        self.gone = True
        self.client.disconnect()

    def check(self) -> None:
        """Fail unless the application saw the requests as sent, in order."""
        reading = ours(self.sent)
        if len(self.requests) > len(reading.requests):
            raise AssertionError(
                f"the application saw {len(self.requests)} requests, but the client "
                f"sent {len(reading.requests)} ({reading.error}): {self.sent!r}"
            )
        for seen, sent in zip(self.requests, reading.requests, strict=False):
            if not seen.ended:
                sent = replace(sent, body=b"", ended=False)
            if seen != sent:
                raise AssertionError(f"{sent} was seen as {seen} in {self.sent!r}")
        self._check_responses(bool(reading.error))

    def _check_responses(self, refused: bool) -> None:
        """Fail unless each response answers a request, in order."""
        if self.gone or self.client.reset:
            return
        methods = [request.method for request in self.requests]
        try:
            responses = self.client.responses(methods)
        except (http.client.HTTPException, ValueError):
            # The last response is incomplete: in progress, or cut off.
            return
        limit = len(self.requests) + (1 if refused or self.client.closed else 0)
        if len(responses) > limit:
            raise AssertionError(
                f"{len(responses)} responses to {len(self.requests)} requests: "
                f"{self.client.received!r}"
            )
        for response in responses[:-1]:
            if response.header("Connection") == "close":
                raise AssertionError(
                    f"a response after Connection: close: {self.client.received!r}"
                )

    def check_against_h11(self) -> None:
        """Fail if h11 parses the data sent differently without a recorded reason."""
        assert_agree(self.sent)


def _stream(sleep: Callable[[float], None]) -> Iterator[bytes]:
    for _ in range(3):
        yield b"some\n"
        yield b""
        sleep(0.2)


def _as_seen(environ: dict[str, Any]) -> Request:
    """Return the request that an environ describes."""
    variables = {
        key: value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    return Request(
        environ["REQUEST_METHOD"],
        environ["RAW_URI"].encode("latin-1"),
        environ["SERVER_PROTOCOL"],
        variables,
    )
