"""`ngx.*`: poll and sleep by yielding, as in nginx's WSGI module (2008).

Source: Manlio Perillo's mod_wsgi for nginx, and eventlet's hub for it.

    conn = environ["ngx.connection_wrapper"](sock.fileno())
    environ["ngx.poll_register"](conn, environ["ngx.WSGI_POLLIN"])
    state = environ["ngx.poll"](1000)
    yield b""
    conn, flags = state()

A connection stays registered until `ngx.poll_unregister`. The result of `state()`
after a timeout is not documented; here it is `(None, 0)`. If several connections
are ready, each poll returns one of them, in round-robin order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pauses import READ, WRITE, pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    State = Callable[[], "tuple[Connection | None, int]"]

__all__ = ["WSGI_POLLIN", "WSGI_POLLOUT", "Connection", "Poller", "adapt"]

WSGI_POLLIN = 1
WSGI_POLLOUT = 4


class Connection:
    """A descriptor that can be polled; the return value of `ngx.connection_wrapper`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd


class Poller:
    """The registered connections of one request."""

    def __init__(self) -> None:
        self._flags: dict[Connection, int] = {}

    def register(self, conn: Connection, flags: int) -> None:
        """Start polling `conn`; `flags` is a sum of WSGI_POLLIN and WSGI_POLLOUT."""
        if not flags or flags & ~(WSGI_POLLIN | WSGI_POLLOUT):
            raise ValueError(
                "ngx.poll_register() takes ngx.WSGI_POLLIN, ngx.WSGI_POLLOUT or "
                f"their sum as flags, not {flags!r}"
            )
        self._flags[conn] = flags

    def unregister(self, conn: Connection) -> None:
        """Stop polling `conn`.

        Raises:
            RuntimeError: it is not registered.
        """
        if self._flags.pop(conn, None) is None:
            raise RuntimeError(
                f"{conn!r} is not registered: call ngx.poll_register() first"
            )

    def poll(self, timeout: float | None = None, /) -> State:
        """Pause at the next empty block until a connection is ready.

        Never parks; the yield parks.

        Args:
            timeout: milliseconds; None or negative for no limit.

        Returns:
            A callable that returns the ready connection and its flags after the
            yield.
        """
        pause = pause_of("ngx.poll()")
        seconds = None if timeout is None or timeout < 0 else timeout / 1000
        for conn, flags in self._flags.items():
            events = READ * bool(flags & WSGI_POLLIN) | WRITE * bool(
                flags & WSGI_POLLOUT
            )
            pause.watch(conn, events, seconds)
        if not self._flags:
            pause.suspend(seconds)  # until the timeout, or the end of the request
        before = pause.ready
        found: tuple[Connection | None, int] | None = None

        def state() -> tuple[Connection | None, int]:
            nonlocal found
            if found is not None:
                return found
            if pause.ready is before:  # the application has not yielded yet
                return None, 0
            found = None, 0
            for fd, events in pause.ready:
                if isinstance(fd, Connection) and fd in self._flags:
                    found = fd, self._take_flags(fd, events)
                    break
            return found

        return state

    def _take_flags(self, conn: Connection, events: int) -> int:
        """Return the flags of a ready connection; move it to the end of the queue."""
        flags = self._flags.pop(conn)
        self._flags[conn] = flags
        happened = WSGI_POLLIN * bool(events & READ) | WSGI_POLLOUT * bool(
            events & WRITE
        )
        # A hang-up or an error is reported by the read or write that follows.
        return happened & flags or flags

    def sleep(self, timeout: float, /) -> None:
        """Pause at the next empty block for `timeout` milliseconds. The yield parks."""
        pause_of("ngx.sleep()").limit(timeout / 1000)


def adapt(application: WSGIApplication) -> WSGIApplication:
    """Return the application with nginx's `ngx.*` in its environ."""

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        poller = Poller()
        environ.update(
            {
                "ngx.WSGI_POLLIN": WSGI_POLLIN,
                "ngx.WSGI_POLLOUT": WSGI_POLLOUT,
                "ngx.connection_wrapper": Connection,
                "ngx.poll": poller.poll,
                "ngx.poll_register": poller.register,
                "ngx.poll_unregister": poller.unregister,
                "ngx.sleep": poller.sleep,
            }
        )
        return application(environ, start_response)

    return adapted
