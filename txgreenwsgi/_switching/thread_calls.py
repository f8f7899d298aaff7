"""Calls that a real thread has made in the task that waits for it.

A task may hand a function to a real thread and park until the function has returned
(`txgreenwsgi._threads`). Inside that function the waits of this package belong to the
parked task: each of them looks its thread up here, and has itself called in the task
while the thread blocks.

The table is empty unless such threads run, so the look-up costs a truth test. It knows
threads. It must never switch.
"""

from __future__ import annotations

import os
from functools import wraps
from threading import get_ident
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from txgreenwsgi._native import lanes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["InTask", "crossing", "in_task", "in_task_of_thread", "tasks_of_threads"]

P = ParamSpec("P")
T = TypeVar("T")


class InTask(Protocol):
    """Calls a function in the task that waits for the calling thread.

    Attributes:
        timeouts: number of `timeout()` blocks that the thread is in: their error must
            be raised inside the block.
    """

    timeouts: int

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Block the thread until the task has called `function`; return its result."""

    def and_hold(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `function` likewise; keep the reactor from running until the next call.

        For code that calls the reactor: see `ThreadCall.and_hold`.
        """


#: By the ident of a thread: calls functions in the task that waits for the thread.
tasks_of_threads: dict[int, InTask] = {}
lanes.lend(tasks_of_threads=tasks_of_threads)


def in_task_of_thread() -> InTask | None:
    """Return the function that calls others in the task of this thread.

    None in the reactor's thread and in threads that no task waits for.
    """
    return tasks_of_threads.get(get_ident()) if tasks_of_threads else None


def in_task(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in the task of this thread, or directly where there is none."""
    call = in_task_of_thread()
    return (
        function(*args, **kwargs) if call is None else call(function, *args, **kwargs)
    )


def crossing(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` wrapped to be called in the task of the calling thread.

    For functions that use the reactor. In a task, and elsewhere, a plain call.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            return in_task(function, *args, **kwargs)
        return function(*args, **kwargs)

    return call


if hasattr(os, "register_at_fork"):
    # The child has no reactor and no other thread.
    os.register_at_fork(after_in_child=tasks_of_threads.clear)
