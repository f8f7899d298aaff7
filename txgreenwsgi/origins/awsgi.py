"""AWSGI: an asynchronous variant of WSGI (May 2008).

Source: Christopher Stawarz, "Proposal for asynchronous WSGI variant", Web-SIG,
6 May 2008. An AWSGI application differs from a WSGI application in that

- environ has `awsgi.version`, `awsgi.input`, `awsgi.readable`, `awsgi.writable`
  and `awsgi.timeout`, and neither `wsgi.version` nor `wsgi.input`;
- start_response returns no `write`;
- its iterable yields bytes, or what `awsgi.readable(fd, timeout)` returned, which
  pauses it until `fd` (a descriptor, an object with `fileno()`, or `awsgi.input`)
  is ready, or for so many seconds.

`awsgi.input.recv(n)` gives what one receive gives: at most n bytes, b"" only when
the client is gone or the body has ended. A chunked body arrives decoded.

    yield environ["awsgi.readable"](environ["awsgi.input"], 1.0)
    if environ["awsgi.timeout"]:
        ...
    data = environ["awsgi.input"].recv(4096)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.errors import ClientDisconnected, TimedOut
from txgreenwsgi._switching.timeouts import timeout as time_limit
from txgreenwsgi._switching.waiting import sleep

from .pauses import READ, WRITE, pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .pauses import Descriptor

    Application = Callable[..., Iterable[Any]]

__all__ = ["VERSION", "AsyncInput", "Wait", "adapt"]

#: The `awsgi.version`.
VERSION = (1, 0)

#: How much of the body is asked for when it is only asked whether there is any.
_PIECE = 65536


class AsyncInput:
    """`awsgi.input`: the request body with the `recv` of a socket."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._recv = environ["txgreenwsgi.recv"]
        self._held = b""

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, as they come. May park if nothing is there.

        Raises:
            RuntimeError: middleware replaced `wsgi.input`, and would be bypassed.
        """
        if not self._held:
            try:
                received: bytes = self._recv(self._environ, size)
            except ClientDisconnected:
                # The proposal's word for it; a write will raise.
                return b""
            return received
        data, self._held = self._held[:size], self._held[size:]
        return data

    def wait(self, seconds: float | None) -> bool:
        """Wait until `recv` would not; False if the time was over first. May park."""
        if self._held:
            sleep(0)
            return True
        limit = time_limit(seconds)
        try:
            with limit:
                self._held = self.recv(_PIECE)
        except TimedOut:
            if not limit.expired:
                raise
            return False
        return True


class Wait:
    """What an application yields in order to be paused. It has nothing to look at."""

    __slots__ = ("_events", "_fd", "_seconds")

    def __init__(
        self, fd: Descriptor | AsyncInput, events: int, seconds: float | None
    ) -> None:
        self._fd = fd
        self._events = events
        self._seconds = seconds

    def wait(self) -> bool:
        """Wait; False if the time was over first. May park."""
        if isinstance(self._fd, AsyncInput):
            return self._fd.wait(self._seconds)
        pause = pause_of("awsgi.readable()")
        pause.watch(self._fd, self._events, self._seconds)
        pause.wait()
        return not pause.timed_out


class _TimedOut:
    """`awsgi.timeout`: true while the last wait of the request has timed out."""

    def __init__(self) -> None:
        self.value = False

    def __bool__(self) -> bool:
        return self.value


def _readable(fd: Descriptor | AsyncInput, timeout: float | None = None, /) -> Wait:
    return Wait(fd, READ, timeout)


def _writable(fd: Descriptor, timeout: float | None = None, /) -> Wait:
    return Wait(fd, WRITE, timeout)


def adapt(
    application: Application,
) -> Callable[[dict[str, Any], Any], Iterator[bytes]]:
    """The WSGI application that runs an AWSGI application.

    Middleware between the two passes on what the application yields, or the
    application is not paused.
    """

    def adapted(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
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

        def start_without_write(*args: Any) -> None:
            start_response(*args)

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
