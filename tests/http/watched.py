"""A server in memory that is watched by a model of what it may do.

Its clients send what they like, split as they like. The model reads the same bytes
with a parser of its own, all at once, and h11 reads them too. It knows what came in
and what went out; it must never know how the streams were made.
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

#: What the watched application does, by the first letters of the path.
PATHS = ("/", "/early", "/some", "/lines", "/sleep", "/stream", "/write", "/fail")


class Wanted(Exception):
    """Raised by the application where it is to fail."""


@implementer(ILogObserver)
class WatchedServer:
    """A server, its application, and what both did.

    Args:
        settings: see `txgreenwsgi.settings`.

    Attributes:
        server: the one in memory.
        clients: all there ever were.
    """

    def __init__(self, **settings: Any) -> None:
        self.server = MemoryServer(self._app, **settings)
        self.clients: dict[str, WatchedClient] = {}
        self._wrong: list[str] = []
        globalLogPublisher.addObserver(self)

    def __call__(self, event: LogEvent) -> None:
        """Part of ILogObserver: note what tells of something wrong."""
        if event["log_level"] not in (LogLevel.error, LogLevel.critical):
            return
        failure = event.get("log_failure")
        if failure is None or not failure.check(Wanted):
            trace = "" if failure is None else failure.getTraceback()
            self._wrong.append(f"{formatEvent(event)}\n{trace}")

    def connect(self, room: float = float("inf")) -> WatchedClient:
        """A new client; see `MemoryServer.connect`."""
        port = str(len(self.clients) + 1)
        client = WatchedClient(self.server.connect(room), port)
        self.clients[port] = client
        return client

    def _app(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        client = self.clients[environ["REMOTE_PORT"]]
        request = _as_seen(environ)
        client.begun.append(request)
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
        return [b"%d" % len(client.begun)]

    def check(self) -> None:
        """Fail if anything so far was wrong."""
        if self._wrong:
            raise AssertionError("the log tells of this: " + "\n".join(self._wrong))
        for client in self.clients.values():
            client.check()

    def finish(self) -> None:
        """Let all end, and fail if anything was wrong or is left."""
        try:
            for client in self.clients.values():
                client.drain()
            for _ in range(4):
                # Past every deadline there is.
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
                raise AssertionError(f"these were left behind: {left}")
            for client in self.clients.values():
                client.check_against_h11()
        finally:
            globalLogPublisher.removeObserver(self)


class WatchedClient:
    """A client and what the application has seen of it.

    Args:
        client: the one in memory.
        port: its name; the application finds it in REMOTE_PORT.

    Attributes:
        sent: all that was sent while the connection was there.
        begun: the requests that the application was called for.
        gone: whether it has left by itself.
    """

    def __init__(self, client: MemoryClient, port: str) -> None:
        self.client = client
        self.sent = b""
        self.begun: list[Request] = []
        self.gone = False
        client.transport.getPeer = (  # type: ignore[method-assign]
            lambda: IPv4Address("TCP", "192.0.2.1", int(port))
        )

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send these pieces, as long as there is a connection."""
        for piece in pieces:
            if self.gone or self.client.socket.client_closed:
                return
            self.sent += piece
            self.client.send(piece)

    def drain(self) -> None:
        """Read all that comes from now on."""
        self.client.socket.room = float("inf")
        if not self.gone:
            while self.client.read():
                pass

    def disconnect(self) -> None:
        """Go away."""
        self.gone = True
        self.client.disconnect()

    def check(self) -> None:
        """Fail unless the application saw what was sent, and nothing else."""
        reading = ours(self.sent)
        if len(self.begun) > len(reading.requests):
            raise AssertionError(
                f"{len(self.begun)} requests were born of {self.sent!r}, in which "
                f"there are {len(reading.requests)} ({reading.error})"
            )
        for seen, sent in zip(self.begun, reading.requests, strict=False):
            if not seen.ended:
                sent = replace(sent, body=b"", ended=False)
            if seen != sent:
                raise AssertionError(f"{sent} was seen as {seen} in {self.sent!r}")
        self._check_responses(bool(reading.error))

    def _check_responses(self, refused: bool) -> None:
        """What the client got are answers to what was seen, one behind the other."""
        if self.gone or self.client.reset:
            return
        methods = [request.method for request in self.begun]
        try:
            responses = self.client.responses(methods)
        except (http.client.HTTPException, ValueError):
            # The last one is not all here: it is coming, or was cut.
            return
        most = len(self.begun) + (1 if refused or self.client.closed else 0)
        if len(responses) > most:
            raise AssertionError(
                f"{len(responses)} responses to {len(self.begun)} requests: "
                f"{self.client.received!r}"
            )
        for response in responses[:-1]:
            if response.header("Connection") == "close":
                raise AssertionError(
                    f"answered behind a close: {self.client.received!r}"
                )

    def check_against_h11(self) -> None:
        """Fail where h11 reads what was sent in another way, but for known reasons."""
        assert_agree(self.sent)


def _stream(sleep: Callable[[float], None]) -> Iterator[bytes]:
    for _ in range(3):
        yield b"some\n"
        yield b""
        sleep(0.2)


def _as_seen(environ: dict[str, Any]) -> Request:
    """The request that an environ tells of, as a parser would tell of it."""
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
