"""Calls of long C functions in a thread, and the amount of work from which it pays.

It knows tasks and threads. It must never know the called functions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorThreads

from txgreenwsgi._parking.waits import may_park, uninterrupted
from txgreenwsgi._switching.running import current_task

from .offload import offload

if TYPE_CHECKING:
    from collections.abc import Callable

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["run_heavy", "run_heavy_on_shared", "size_of"]

P = ParamSpec("P")
T = TypeVar("T")


def _parking_task() -> Task[object] | None:
    """Return the task that can wait for a thread; None to call directly."""
    task = current_task()
    if (
        task is None
        or task.dying
        or not may_park()
        or not IReactorThreads.providedBy(task.hub.reactor)
    ):
        return None
    return task


def run_heavy(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `function(*args, **kwargs)`, computed in a thread. May park.

    For functions without side effects, with arguments that do not change: if the task
    is interrupted, the call runs to its end and its result is dropped. A call that has
    not started is skipped. Outside tasks, and in a task that cannot park, the call is
    direct.
    """
    if _parking_task() is None:
        return function(*args, **kwargs)
    call: partial[T] = partial(function, *args, **kwargs)
    abandoned = list[bool]()

    def run() -> Any:
        return None if abandoned else call()

    try:
        result: T = offload(run)
    except BaseException:
        abandoned.append(True)
        raise
    return result


def run_heavy_on_shared(
    function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """As `run_heavy`, for calls that use an object of the task. May park.

    Interruptions are raised at the next wait, so that the task never uses the object
    while the thread does. Only a kill is raised during the call.
    """
    task = _parking_task()
    if task is None:
        return function(*args, **kwargs)
    with uninterrupted(task):
        return offload(function, *args, **kwargs)


def size_of(data: object) -> int:
    """Return the size of a bytes-like object in bytes; 0 for other objects."""
    if type(data) is bytes:
        return len(data)
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        return 0
    with view:
        return view.nbytes
