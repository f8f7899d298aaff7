"""Calls of blocking functions in the reactor's thread pool.

It knows the pool and contexts. It must never know the called function.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

from txgreenwsgi._parking.waits import may_park
from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.running import current_task
from txgreenwsgi._switching.waiting import wait_for_deferred

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["offload", "offloaded"]

P = ParamSpec("P")
T = TypeVar("T")


def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in the reactor's thread pool and return its result. May park.

    For calls that cannot be made cooperative: files, C libraries, long computations.
    The function gets a copy of the caller's contextvars. Outside a task it is called
    directly. A started call runs to its end, even if the waiting task is cancelled.

    Args:
        function: the function to call.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        Exception: the exception that `function` raised.
        NotInGreenlet: the reactor has no thread pool.
    """
    task = current_task()
    if task is None or not may_park():
        return function(*args, **kwargs)
    reactor = task.hub.reactor
    if not IReactorThreads.providedBy(reactor):
        raise NotInGreenlet(
            f"{reactor!r} has no thread pool, which offload() needs: use a reactor "
            "that provides IReactorThreads"
        )
    context = copy_context()
    run: Any = context.run
    result: T = wait_for_deferred(
        deferToThreadPool(
            reactor, reactor.getThreadPool(), run, function, *args, **kwargs
        )
    )
    return result


def offloaded(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` wrapped in `offload`. Usable as a decorator."""

    @wraps(function)
    def offloading(*args: P.args, **kwargs: P.kwargs) -> T:
        return offload(function, *args, **kwargs)

    return offloading
