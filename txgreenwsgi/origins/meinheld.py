"""`meinheld.continuation`: suspend at any call depth, resume with a value.

Source: Yutaka Matsubara's meinheld (from 2010), `meinheld/middleware.py` and
`server.c`: `ContinuationMiddleware` puts a `Continuation` into environ.
`suspend(timeout)` switches away from any call depth; `resume(*args, **kwargs)`
makes it return. Both raise IOError in the wrong state.

meinheld resumes in its own thread only; here any thread may. The application
continues at the reactor's next turn, not inside the call of `resume`.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.thread_calls import crossing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from txgreenwsgi._switching.greenlets import Hub

__all__ = ["CONTINUATION_KEY", "Continuation", "adapt"]

CONTINUATION_KEY = "meinheld.continuation"


class Continuation:
    """The continuation of one request."""

    def __init__(self) -> None:
        self._suspends = False
        self._suspended: list[tuple[Suspension, Hub]] = []

    @crossing
    def suspend(self, timeout: float = 0) -> Any:
        """Park until `resume` is called, and return its arguments. May park.

        Args:
            timeout: seconds; 0 for no limit.

        Returns:
            A single positional argument unchanged, several (or none) as a tuple,
            keyword arguments alone as a dict, both as a pair: as greenlet's `switch`.

        Raises:
            TimedOut: (a TimeoutError) `resume` was not called in time.
            OSError: another task of the request has already suspended it.
            ValueError: the timeout is negative.
        """
        if not timeout >= 0:
            raise ValueError(
                f"suspend() takes a number of seconds >= 0, not {timeout!r}"
            )
        if self._suspends:
            raise OSError("already suspended")
        task = require_task("Continuation.suspend()")
        suspension = Suspension(task, CONTINUATION_KEY, timeout or None)
        self._suspends = True
        self._suspended.append((suspension, task.hub))
        try:
            return suspension.wait()
        finally:
            self._suspended.clear()
            self._suspends = False

    def resume(self, *args: object, **kwargs: object) -> None:
        """Make `suspend` return. Never parks; call from any thread.

        Raises:
            OSError: it is not suspended, or was already resumed.
        """
        try:
            # pop() is atomic, so only the first caller, in any thread, gets it.
            suspension, hub = self._suspended.pop()
        except IndexError:
            raise OSError("not suspended or dead") from None
        positional: object = args[0] if len(args) == 1 else args
        value = positional if not kwargs else (positional, kwargs) if args else kwargs

        def resume() -> None:
            suspension.resume(value)

        if get_ident() == hub.thread:
            hub.at_next_turn(resume)
        else:
            hub.call_from_thread(resume)


def adapt(application: WSGIApplication) -> WSGIApplication:
    """Return the application with a `meinheld.continuation` in its environ."""

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ[CONTINUATION_KEY] = Continuation()
        return application(environ, start_response)

    return adapted
