"""AWSGI: an asynchronous variant of WSGI (May 2008).

Source: Christopher Stawarz, "Proposal for asynchronous WSGI variant", Web-SIG,
6 May 2008. An AWSGI application differs from a WSGI application in that

- environ has `awsgi.version`, `awsgi.input`, `awsgi.readable`, `awsgi.writable`
  and `awsgi.timeout`, and neither `wsgi.version` nor `wsgi.input`;
- start_response returns no `write`;
- its iterable yields bytes, or the return value of `awsgi.readable(fd, timeout)`,
  which pauses it until `fd` (a descriptor, an object with `fileno()`, or
  `awsgi.input`) is ready, or for `timeout` seconds.

`awsgi.input.recv(n)` returns the result of one receive: at most n bytes, b"" only
when the client has disconnected or the body has ended. A chunked body arrives
decoded.

    yield environ["awsgi.readable"](environ["awsgi.input"], 1.0)
    if environ["awsgi.timeout"]:
        ...
    data = environ["awsgi.input"].recv(4096)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._switching.errors import ClientDisconnected, TimedOut
from txgreenwsgi._switching.timeouts import timeout as time_limit
from txgreenwsgi._switching.waiting import sleep

from .pauses import READ, WRITE, pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .pauses import Descriptor

    AWSGIApplication = Callable[..., Iterable["bytes | Wait"]]

__all__ = ["VERSION", "AsyncInput", "Wait", "adapt"]

#: The value of `awsgi.version`.
VERSION = (1, 0)

#: Maximum number of bytes read ahead by `wait`, to detect that data has arrived.
_READ_AHEAD_BYTES = 65536


class AsyncInput:
    """`awsgi.input`: the request body with the `recv` of a socket."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ
        self._recv = environ["txgreenwsgi.recv"]
        self._buffer = b""

    def recv(self, size: int) -> bytes:
        """Receive at least one byte and at most `size`. May park.

        Returns:
            b"" at the end of the body, and when the client has disconnected.

        Raises:
            RuntimeError: middleware replaced `wsgi.input`, and would be bypassed.
        """
        if not self._buffer:
            try:
                received: bytes = self._recv(self._environ, size)
            except ClientDisconnected:
                # Defined by the proposal; the next write raises.
                return b""
            return received
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def wait(self, seconds: float | None) -> bool:
        """Wait until `recv` would not park; return False on timeout. May park."""
        if self._buffer:
            sleep(0)
            return True
        limit = time_limit(seconds)
        try:
            with limit:
                self._buffer = self.recv(_READ_AHEAD_BYTES)
        except TimedOut:
            if not limit.expired:
                raise
            return False
        return True


class Wait:
    """An opaque object that an application yields to pause."""

    __slots__ = ("_events", "_fd", "_seconds")

    def __init__(
        self, fd: Descriptor | AsyncInput, events: int, seconds: float | None
    ) -> None:
        self._fd = fd
        self._events = events
        self._seconds = seconds

    def wait(self) -> bool:
        """Wait; return False on timeout. May park."""
        if isinstance(self._fd, AsyncInput):
            return self._fd.wait(self._seconds)
        pause = pause_of("awsgi.readable()")
        pause.watch(self._fd, self._events, self._seconds)
        pause.wait()
        return not pause.timed_out


class _TimedOut:
    """`awsgi.timeout`: true if the last wait of the request timed out."""

    def __init__(self) -> None:
        self.value = False

    def __bool__(self) -> bool:
        return self.value


def _readable(fd: Descriptor | AsyncInput, timeout: float | None = None, /) -> Wait:
    return Wait(fd, READ, timeout)


def _writable(fd: Descriptor, timeout: float | None = None, /) -> Wait:
    return Wait(fd, WRITE, timeout)


def adapt(
    application: AWSGIApplication,
) -> WSGIApplication:
    """Return a WSGI application that runs an AWSGI application.

    Middleware between the two must pass the application's yields through; otherwise
    the application is not paused.
    """

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes]:
        timed_out = _TimedOut()
        own = {
            **environ,
            "awsgi.version": VERSION,
            "awsgi.input": AsyncInput(environ),
            "awsgi.readable": _readable,
            "awsgi.writable": _writable,
            "awsgi.timeout": timed_out,
        }
        del own["wsgi.version"], own["wsgi.input"]

        def start_without_write(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: OptExcInfo | None = None,
        ) -> None:
            if exc_info is None:
                start_response(status, headers)
            else:
                start_response(status, headers, exc_info)

        blocks = application(own, start_without_write)
        try:
            for block in blocks:
                if isinstance(block, Wait):
                    timed_out.value = not block.wait()
                else:
                    yield block
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    return adapted
