"""`meinheld.continuation`: be suspended at any depth, and resumed with a value.

Source: Yutaka Matsubara's meinheld (from 2010), `meinheld/middleware.py` and
`server.c`: `ContinuationMiddleware` puts a `Continuation` into environ.
`suspend(timeout)` switches away from any call depth; `resume(*args, **kwargs)`
makes it return. Both raise IOError when it is not their turn.

meinheld resumes in its own thread only; here any thread may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.greenlets import Suspension, require_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Application = Callable[..., Iterable[bytes]]

__all__ = ["CONTINUATION_KEY", "Continuation", "adapt"]

CONTINUATION_KEY = "meinheld.continuation"


class Continuation:
    """The rest of one request, to be gone on with by whoever has it."""

    def __init__(self) -> None:
        self._suspension: Suspension | None = None

    def suspend(self, timeout: float = 0) -> Any:
        """Park until `resume` is called; what was given to it. May park.

        Args:
            timeout: seconds; 0 for no limit.

        Returns:
            One positional argument as it is, several (or none) as a tuple; only
            keyword arguments as a dict, both as a pair: as greenlet's `switch`.

        Raises:
            TimedOut: (a TimeoutError) nobody has called `resume` in time.
            OSError: it is suspended already, by another task of the request.
            ValueError: the timeout is negative.
        """
        if not timeout >= 0:
            raise ValueError(f"a timeout is a number of seconds >= 0, not {timeout!r}")
        if self._suspension is not None:
            raise OSError("already suspended")
        self._suspension = suspension = Suspension(
            require_task("Continuation.suspend()"), CONTINUATION_KEY, timeout or None
        )
        try:
            return suspension.wait()
        finally:
            self._suspension = None

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Make `suspend` return. Never parks; call from any thread.

        Raises:
            OSError: it is not suspended, or was resumed already.
        """
        suspension = self._suspension
        if suspension is None:
            raise OSError("not suspended or dead")
        positional = args[0] if len(args) == 1 else args
        value = positional if not kwargs else (positional, kwargs) if args else kwargs
        if not suspension.resume(value):
            raise OSError("already resumed")


def adapt(application: Application) -> Application:
    """The application with a `meinheld.continuation` in its environ."""

    def adapted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[CONTINUATION_KEY] = Continuation()
        return application(environ, start_response)

    return adapted
