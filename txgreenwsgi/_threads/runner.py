"""The runner that calls an application in a real thread.

It knows the gateway and threads. It must never know connections.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from txgreenwsgi._switching.greenlets import require_task
from txgreenwsgi._switching.running import current_task

from .calls import ThreadCall
from .pool import pool_of
from .response import SinkInThread
from .routes import RoutePatterns, route_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._wsgi.gateway import Application, ResponseSink

    Serve = Callable[[Application, WSGIEnvironment, ResponseSink], None]

__all__ = ["DEFAULT_THREADS", "PatternRunner", "in_thread", "to_thread"]

#: The number of threads that run at a time, by default.
DEFAULT_THREADS: Final = 8

P = ParamSpec("P")
T = TypeVar("T")


class PatternRunner:
    """Serves the requests that match some patterns in threads, others in their task.

    Args:
        patterns: the requests to serve in threads.
        size: the number of threads that run at a time.
        serve: calls the application, in the task or in the thread.
    """

    def __init__(self, patterns: RoutePatterns, size: int, serve: Serve) -> None:
        self._patterns = patterns
        self._size = size
        self._serve = serve

    def __call__(
        self, application: Application, environ: WSGIEnvironment, sink: ResponseSink
    ) -> None:
        """Call `application`; see `Runner` in `_serving/runner.py`. May park."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if self._patterns.match(method, path):
            call: ThreadCall[None] = ThreadCall(
                require_task("a request in a thread"), route_of(method, path)
            )
            in_thread = SinkInThread(call, sink)
            call.run(
                pool_of(call.task.hub, self._size),
                partial(self._serve, application, environ, in_thread),
            )
        else:
            self._serve(application, environ, sink)


def to_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a real thread and return its result. Parks.

    For code that computes or blocks in ways that cannot be made cooperative. The
    function may do everything that a request may: read the body, `write`, `wait` for a
    Deferred, `sleep`. It runs inside the caller's Context. Other requests continue
    meanwhile, so it must be thread-safe. Called in a request's thread, or outside a
    task, it calls `function` directly.

    In the environ as `txgreenwsgi.to_thread`.

    Args:
        function: the function to call.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        BaseException: what `function` raised. An interruption of the request is raised
            at the next wait of `function`.
    """
    task = current_task()
    if task is None:
        return function(*args, **kwargs)
    name = getattr(function, "__qualname__", "") or repr(function)
    call: ThreadCall[T] = ThreadCall(task, name)
    return call.run(
        pool_of(task.hub, DEFAULT_THREADS), partial(function, *args, **kwargs)
    )


def in_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` wrapped in `to_thread`. Usable as a decorator of a view."""

    @wraps(function)
    def calling_in_thread(*args: P.args, **kwargs: P.kwargs) -> T:
        return to_thread(function, *args, **kwargs)

    return calling_in_thread
