"""Connections that break, in every state of a connection.

The kernel may report any error, from `send` or from `recv`, or the client may vanish
silently. In each case no error is logged, for it is not the server's; the application's
`close()` is called; nothing is left behind; and other requests are unaffected.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

from .logged import Logged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from txgreenwsgi.testing import MemoryClient

    Environ = dict[str, Any]
    Start = Callable[..., Any]

LARGE = bytes(300_000)
UPLOAD = 200_000

#: Errors that the kernel reports for lost connections, or for itself.
ERRORS = [
    errno.EPIPE,
    errno.ECONNRESET,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
    errno.ENOBUFS,
    errno.EBADF,
    errno.EIO,
]


class Application:
    """Waits in each of the ways in which an application can wait.

    Attributes:
        opened: the number of responses that were begun.
        closed: the number of those whose `close()` was called.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Respond as the path says, within a minute."""
        sleep = environ["txgreenwsgi.sleep"]
        match environ["PATH_INFO"]:
            case "/sleep":
                sleep(2)
            case "/read":
                environ["wsgi.input"].read()
            case "/late":
                sleep(2)
                environ["wsgi.input"].read()
            case "/write":
                write = start_response("200 OK", [])
                for _ in range(3):
                    write(LARGE)
                    sleep(1)
                return []
        start_response("200 OK", [("Content-Type", "text/plain")])
        self.opened += 1
        return _Response(self, environ["PATH_INFO"], sleep)


class _Response:
    def __init__(self, app: Application, path: str, sleep: Any) -> None:
        self._app = app
        self._path = path
        self._sleep = sleep

    def __iter__(self) -> Iterator[bytes]:
        match self._path:
            case "/large":
                yield LARGE
            case "/stream":
                for _ in range(5):
                    yield b"some"
                    self._sleep(1)
            case "/turns":
                for _ in range(5):
                    yield b""
                    self._sleep(1)
                yield b"done"
            case _:
                yield b"unharmed"

    def close(self) -> None:
        self._app.closed += 1


def _request(path: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n%b" % (path, fields, body)


_LENGTH = b"Content-Length: %d\r\n" % UPLOAD
_EXPECT = _LENGTH + b"Expect: 100-continue\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

#: The bytes that bring a connection into each state. The client reads at most
#: 10,000 bytes.
STATES: dict[str, bytes] = {
    "before the first byte": b"",
    "in a request line": b"GET /sle",
    "in a head": b"GET /sleep HTTP/1.1\r\nHost: x\r\nX-",
    "while the application sleeps": _request(b"/sleep"),
    "while the application waits for a body": _request(b"/read", _LENGTH),
    "within a body": _request(b"/read", _LENGTH, b"abc"),
    "within a chunk": _request(b"/read", _CHUNKED, b"5\r\nab"),
    "while the client waits for 100 Continue": _request(b"/late", _EXPECT),
    "while reading is paused": _request(b"/late", _LENGTH, bytes(UPLOAD - 1)),
    "while a whole body waits to be read": _request(b"/late", _LENGTH, bytes(UPLOAD)),
    "between two blocks": _request(b"/stream"),
    "between two empty blocks": _request(b"/turns"),
    "while a large block waits for the client": _request(b"/large"),
    "in write(), while it waits for the client": _request(b"/write"),
    "behind a response, with the connection idle": _request(b"/"),
    "behind a response, with the next head begun": _request(b"/") + b"GET /",
    "behind a response, with the body still coming": _request(b"/", _LENGTH, b"abc"),
    "behind the last response": _request(b"/", b"Connection: close\r\n"),
    "behind the last response, with a body still coming": _request(
        b"/", b"Connection: close\r\n" + _LENGTH, b"abc"
    ),
    "behind a refusal": b"what?\r\n\r\n",
    "behind a refusal in a body": _request(b"/read", _CHUNKED, b"x\r\n"),
    "with a second request waiting": _request(b"/sleep") + _request(b"/stream"),
    "with a second request begun": _request(b"/sleep") + b"GET /st",
    "with a refusal waiting": _request(b"/sleep") + b"what?\r\n\r\n",
}


def _break_send(client: MemoryClient, number: int) -> None:
    def send(data: bytes | memoryview, flags: int = 0) -> int:
        raise OSError(number, "send")

    client.socket.send = send  # type: ignore[method-assign]


def _break_receive(client: MemoryClient, number: int) -> None:
    def receive(size: int, flags: int = 0) -> bytes:
        raise OSError(number, "recv")

    client.socket.recv = receive  # type: ignore[method-assign]
    client.socket.client_closed = True  # so the kernel reports it readable


def _break_both(client: MemoryClient, number: int) -> None:
    _break_send(client, number)
    _break_receive(client, number)


#: Ways in which a connection breaks. The number is one of `ERRORS`.
BREAKS: dict[str, Callable[[MemoryClient, int], object]] = {
    "send fails": _break_send,
    "recv fails": _break_receive,
    "both fail": _break_both,
    "the client resets": lambda client, number: client.disconnect(),
    "the client ends": lambda client, number: client.end(),
    "the reactor reports the loss": lambda client, number: (
        client.transport.connectionLost(Failure(ConnectionLost()))
    ),
    "an abort comes first": lambda client, number: (
        client.transport.abortConnection() if client.transport.connected else None
    ),
}


class TransportFaultTests(LeakCheckMixin, SynchronousTestCase):
    """Every state, and every way to break."""

    def setUp(self) -> None:
        """Collect the log."""
        self.logged = Logged(self)

    def break_in(
        self,
        state: str,
        how: str,
        number: int,
        **settings: Any,
    ) -> None:
        """Return a connection that broke in a state, and one beside it."""
        app = Application()
        case = f"{state}: {how} ({errno.errorcode[number]}), {settings}"
        server = self.serve(app, **settings)
        beside = server.connect()
        beside.send(_request(b"/sleep"))
        client = server.connect(room=10_000)
        client.send(STATES[state])
        BREAKS[how](client, number)
        server.settle()
        server.advance(2)
        beside.send(_request(b"/"))
        if "max_in_flight" not in settings:
            self.assert_unharmed(beside, case)
        # Parked requests were interrupted, or have ended by themselves.
        for _ in range(70):
            server.advance(1)
        self.assert_unharmed(beside, case)
        beside.disconnect()
        self.assertEqual(server.tasks, [], case)
        self.assertEqual(list(server.site.server.table.exchanges), [], case)
        self.assertEqual(app.opened, app.closed, case)
        server.advance(100)
        self.assertEqual(list(server.site.server.shutdown.connections), [], case)
        self.assertEqual(server.reactor.getDelayedCalls(), [], case)
        self.assertEqual(self.logged.errors(), [], case)

    def assert_unharmed(self, beside: MemoryClient, case: str) -> None:
        """Fail unless the request beside it, and the next one, were answered."""
        bodies = [response.body for response in beside.responses()]
        self.assertEqual(bodies, [b"unharmed", b"unharmed"], case)

    def test_every_state(self) -> None:
        """A connection that breaks ends its own request and nothing else."""
        for state in STATES:
            for how in BREAKS:
                self.break_in(state, how, errno.ECONNRESET)

    def test_every_error(self) -> None:
        """The kind of error that the kernel reports makes no difference."""
        for number in ERRORS:
            for state in (
                "in a head",
                "within a body",
                "between two blocks",
                "while a large block waits for the client",
                "behind a refusal",
            ):
                for how in ("send fails", "recv fails", "both fail"):
                    self.break_in(state, how, number)

    def test_every_state_with_cancelling(self) -> None:
        """The same holds with --on-disconnect cancel."""
        for state in STATES:
            for how in (
                "both fail",
                "the client resets",
                "the reactor reports the loss",
            ):
                self.break_in(state, how, errno.EPIPE, on_disconnect="cancel")

    def test_every_state_in_the_queue(self) -> None:
        """The same holds for queued requests."""
        for state in STATES:
            for how in BREAKS:
                self.break_in(state, how, errno.EPIPE, max_in_flight=1, queue_timeout=0)

    def test_every_state_without_keep_alive(self) -> None:
        """The same holds without keep-alive."""
        for state in STATES:
            if state.startswith("behind a response"):
                continue
            for how in ("send fails", "recv fails", "the client resets"):
                app = Application()
                server = self.serve(app, keep_alive=0)
                client = server.connect(room=10_000)
                client.send(STATES[state])
                BREAKS[how](client, errno.ECONNRESET)
                for _ in range(160):
                    server.advance(1)
                self.assertEqual(server.tasks, [], (state, how))
                self.assertEqual(app.opened, app.closed, (state, how))
                self.assertEqual(
                    list(server.site.server.shutdown.connections), [], (state, how)
                )
                self.assertEqual(self.logged.errors(), [], (state, how))
