"""The runner that calls an application in a real thread.

It knows the gateway and threads. It must never know connections.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from greenlet import GreenletExit

from txgreenwsgi._native import lanes
from txgreenwsgi._switching.errors import Cancelled, ClientDisconnected, RequestTimeout
from txgreenwsgi._switching.greenlets import require_task
from txgreenwsgi._switching.running import current_task

from .automatic import AutomaticRoutes
from .calls import ThreadCall
from .pool import pool_of
from .response import SinkInThread
from .routes import RoutePatterns, route_of
from .turns import meter_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._switching.greenlets import Hub, Task
    from txgreenwsgi._wsgi.gateway import Application, ResponseSink

    from .turns import Life, TurnMeter

    Serve = Callable[[Application, WSGIEnvironment, ResponseSink], None]

__all__ = ["ThreadRunner", "in_thread", "to_thread"]

#: The statuses of requests that have failed: an exception of the application, before
#: or after it is answered.
_FAILED: Final = (0, 500)

P = ParamSpec("P")
T = TypeVar("T")


@lanes.with_lanes
class ThreadRunner(lanes.ThreadRunnerState):
    """Serves some requests in threads, others in their task.

    Args:
        patterns: the requests to serve in threads.
        serve: calls the application, in the task or in the thread.
        automatic: whether requests that hold up the reactor move to threads.
    """

    def __init__(self, patterns: RoutePatterns, serve: Serve, automatic: bool) -> None:
        self._patterns = patterns
        self._serve = serve
        self._automatic = automatic
        self._has_patterns = bool(patterns)
        # Set at the first request.
        self._observed: tuple[Hub, AutomaticRoutes, TurnMeter] | None = None
        # When the measured requests began, and the reactor's clocks at that time.
        self._beginnings: WeakKeyDictionary[Task[object], tuple[float, Life]]
        self._beginnings = WeakKeyDictionary()

    def run(
        self, application: Application, environ: WSGIEnvironment, sink: ResponseSink
    ) -> None:
        """Call `application`; see `Runner` in `_serving/runner.py`. May park."""
        if self._has_patterns:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            if self._patterns.match(method, path):
                self._in_thread(application, environ, sink, route_of(method, path))
                return
        if not self._automatic:
            self._serve(application, environ, sink)
            return
        # Every request comes here: each call and property would cost a percent.
        _, routes, _ = self._observed or self._begin()
        if routes.moved or routes.suspects:
            route = route_of(environ["REQUEST_METHOD"], environ["PATH_INFO"])
            if route in routes.moved:
                self._in_moved(application, environ, sink, route)
                return
            if routes.suspects:
                self._measure(require_task("a request"))
        # Not `self._serve(...)`, which is looked up as a method, in the class.
        serve = self._serve
        serve(application, environ, sink)

    def _begin(self) -> tuple[Hub, AutomaticRoutes, TurnMeter]:
        hub = require_task("a request").hub
        self._observed = hub, AutomaticRoutes(hub.seconds), meter_of(hub)
        return self._observed

    def _measure(self, task: Task[object]) -> None:
        """Note the beginning of a request whose duration `ended` needs."""
        hub, _, meter = self._observed or self._begin()
        self._beginnings[task] = hub.resumed_at, meter.begin_life()
        task.measured = True

    def ended(self, task: Task[object], method: str, path: str, code: int) -> None:
        """Note the end of a request whose task was measured (`Task.measured`).

        Call in the reactor greenlet, when the task has ended.

        Args:
            task: the task of the request.
            method: the request method.
            path: the path, as in PATH_INFO.
            code: the status that was sent; 0 for none.
        """
        if not self._automatic or self._patterns.match(method, path):
            return
        hub, routes, meter = self._observed or self._begin()
        began, life = self._beginnings.pop(task, (0.0, None))
        turns = meter.take(task)
        route = route_of(method, path)
        if route in routes.moved:
            return
        if task.uses_reactor:
            routes.pin(route, "waits for Deferreds")
        whole = None
        if life is not None:
            whole = turns.blocked + meter.waited(life, hub.ended_at - began)
        routes.ended(route, turns.blocked, whole, code in _FAILED)
        meter.measure_for(routes, routes.observes)

    def _in_moved(
        self,
        application: Application,
        environ: WSGIEnvironment,
        sink: ResponseSink,
        route: str,
    ) -> None:
        """Call `application` in a thread; note what the route does there."""
        _, routes, _ = self._observed or self._begin()
        task = require_task("a request in a thread")
        call: ThreadCall[None] = ThreadCall(task, route)
        in_thread = SinkInThread(call, sink)
        failed = True
        try:
            self._run(call, application, environ, in_thread)
            failed = sink.code in _FAILED
        except (Cancelled, ClientDisconnected, RequestTimeout, GreenletExit):
            failed = False  # not by the application
            raise
        finally:
            if task.uses_reactor:
                routes.pin(route, "waits for Deferreds or calls the reactor")
            routes.ended_in_thread(route, call.seconds, failed)

    def _in_thread(
        self,
        application: Application,
        environ: WSGIEnvironment,
        sink: ResponseSink,
        route: str,
    ) -> None:
        """Call `application` in a thread. Parks."""
        call: ThreadCall[None] = ThreadCall(require_task("a request"), route)
        self._run(call, application, environ, SinkInThread(call, sink))

    def _run(
        self,
        call: ThreadCall[None],
        application: Application,
        environ: WSGIEnvironment,
        sink: SinkInThread,
    ) -> None:
        call.run(
            pool_of(call.task.hub), partial(self._serve, application, environ, sink)
        )


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
    return call.run(pool_of(task.hub), partial(function, *args, **kwargs))


def in_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` wrapped in `to_thread`. Usable as a decorator of a view."""

    @wraps(function)
    def calling_in_thread(*args: P.args, **kwargs: P.kwargs) -> T:
        return to_thread(function, *args, **kwargs)

    return calling_in_thread
