"""Calls that block whatever one does, made in the reactor's thread pool.

It knows the pool and contexts. It must never know what is called.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool

from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.waiting import wait

from ._place import here, may_park

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["offload", "offloaded"]

P = ParamSpec("P")
T = TypeVar("T")


def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in the reactor's thread pool; what it returns. May park.

    For what truly blocks: files, C libraries, long computations. It sees the
    caller's contextvars; what it changes of them stays in the thread. Outside a
    task it is simply called. A call that has begun runs to its end, even if the
    task that waits for it is cancelled.

    Raises:
        Exception: what `function` raises.
        NotInGreenlet: the reactor has no threads.
    """
    task = here()
    if task is None or not may_park():
        return function(*args, **kwargs)
    reactor = task.hub.reactor
    if not IReactorThreads.providedBy(reactor):
        raise NotInGreenlet(
            f"offload() needs a reactor with a thread pool; {reactor!r} has none"
        )
    context = copy_context()
    run: Any = context.run
    result: T = wait(
        deferToThreadPool(
            reactor, reactor.getThreadPool(), run, function, *args, **kwargs
        )
    )
    return result


def offloaded(function: Callable[P, T]) -> Callable[P, T]:
    """A function that is always called by `offload`. Usable as a decorator."""

    @wraps(function)
    def elsewhere(*args: P.args, **kwargs: P.kwargs) -> T:
        return offload(function, *args, **kwargs)

    return elsewhere
