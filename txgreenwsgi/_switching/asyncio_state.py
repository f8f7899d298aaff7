"""The per-thread state of event loops: asyncio's running loop, and generator hooks.

The reactor greenlet and each of our tasks have their own state. Otherwise, code in a
task would see the reactor's loop as running and assume that it is inside a coroutine:
Django's ORM raises SynchronousOnlyOperation then, and `asyncio.run` fails. asyncio and
trio also set the interpreter's hooks for asynchronous generators (PEP 525) while a loop
runs; two loops that run in two tasks would each restore the hooks of the other.

It knows the functions that asyncio documents under "Extending". It must never know
tasks.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, NamedTuple

__all__ = [
    "NO_HOOKS",
    "AsyncioState",
    "generator_hooks",
    "hooks_used",
    "running_loop",
    "set_generator_hooks",
    "swap_state",
]


class _State(NamedTuple):
    """The state of a greenlet in which an event loop runs.

    Attributes:
        loop: the running loop of asyncio; None under another library.
        task: the loop's current task, if any.
        hooks: the hooks for asynchronous generators.
    """

    loop: asyncio.AbstractEventLoop | None
    task: asyncio.Task[object] | None
    hooks: tuple[object, ...]


#: None if no event loop runs.
AsyncioState = _State | None

#: The result of `generator_hooks` while no event loop runs.
NO_HOOKS = (None, None)

generator_hooks = sys.get_asyncgen_hooks
_set_generator_hooks = sys.set_asyncgen_hooks
#: True once a program has set the hooks through `set_generator_hooks`. Until then only
#: asyncio's loops, which are found by `running_loop`, can have set them.
hooks_used = False


def set_generator_hooks(*args: Any, **kwargs: Any) -> None:
    """As `sys.set_asyncgen_hooks`. From now on each task has hooks of its own."""
    global hooks_used
    hooks_used = True
    _set_generator_hooks(*args, **kwargs)


running_loop = asyncio._get_running_loop
_set_running_loop = asyncio._set_running_loop


def swap_state(state: AsyncioState) -> AsyncioState:
    """Set the state of this thread to `state` and return the previous one.

    Call only next to a greenlet switch.
    """
    # The order matters: since Python 3.14 a loop's current task can be changed only
    # while that loop is marked as running.
    previous: AsyncioState = None
    loop = running_loop()
    hooks = generator_hooks()
    if loop is not None or hooks != NO_HOOKS:
        task = None if loop is None else asyncio.current_task(loop)
        if loop is not None and task is not None:
            asyncio.tasks._leave_task(loop, task)
        previous = _State(loop, task, hooks)
    if state is None:
        _set_running_loop(None)
        if hooks != NO_HOOKS:
            _set_generator_hooks(*NO_HOOKS)
    else:
        _set_running_loop(state.loop)
        if state.loop is not None and state.task is not None:
            asyncio.tasks._enter_task(state.loop, state.task)
        if state.hooks != hooks:
            _set_generator_hooks(*state.hooks)  # type: ignore[arg-type]
    return previous
