"""Green `threading`: the standard module on green locks and threads.

In a task, a `Thread` is a task, and locks, conditions, events, semaphores and barriers
park. It is the code of the standard module, run on the green `_thread`.
"""

from __future__ import annotations

import sys
import threading as _standard
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit as _GreenletExit

from txgreenwsgi._parking.waits import main_task as _main_task
from txgreenwsgi._switching.errors import Cancelled as _Cancelled
from txgreenwsgi._switching.running import current_task as _current_task

from . import thread as _green_thread
from .mirror import run_again as _run_again

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


def rebuild(namespace: dict[str, Any]) -> None:
    """Make the `threading` module in `namespace` green and keep its known threads.

    Call from the main thread, before any task has started a thread.
    """
    locks = vars(_standard).get("_shutdown_locks")
    if locks is not None and namespace is vars(_standard):
        # The main thread object is replaced, so this lock is never released.
        locks.discard(namespace["_main_thread"]._tstate_lock)
    kept = {name: vars(_standard)[name] for name in _KEPT if name in vars(_standard)}
    known = dict(vars(_standard)["_active"])
    dangling = list(vars(_standard)["_dangling"])
    _run_again("threading", namespace, {"_thread": _green_thread})
    namespace.update(kept)
    main = namespace["_main_thread"].ident
    for ident, thread in known.items():
        if ident != main:
            namespace["_active"][ident] = thread
    for thread in dangling:
        if thread.ident != main:
            namespace["_dangling"].add(thread)
    namespace["_DummyThread"] = _dummy_class(namespace["_DummyThread"], namespace)
    namespace["_make_invoke_excepthook"] = _without_ended_tasks(
        namespace["_make_invoke_excepthook"]
    )


# Set once for all threads, by programs or by other standard modules.
_KEPT = (
    "_profile_hook",
    "_shutdown_locks",
    "_threading_atexits",
    "_trace_hook",
    "excepthook",
)


def _without_ended_tasks(make: Any) -> Any:
    """Wrap `_make_invoke_excepthook` to ignore the exceptions that kill a task.

    At exit, the interpreter ends daemon threads silently. A green daemon thread is
    killed with an exception, which must not be reported.
    """

    def make_invoke_excepthook() -> Any:
        invoke_excepthook = make()

        def invoke_unless_ended(thread: object) -> None:
            if not isinstance(sys.exc_info()[1], (_GreenletExit, _Cancelled)):
                invoke_excepthook(thread)

        return invoke_unless_ended

    return make_invoke_excepthook


def _dummy_class(standard: Any, namespace: dict[str, Any]) -> Any:
    class _DummyThread(standard):  # type: ignore[misc]
        """A thread or task that was not started by `Thread`."""

        def __init__(self) -> None:
            super().__init__()
            task = _current_task()
            if (
                task is not None
                and task is not _main_task()
                and not _green_thread.is_thread(task)
            ):
                # The ident may be reused by another task.
                ident = self.ident
                task.call_at_end(lambda: namespace["_active"].pop(ident, None))

    _DummyThread.__qualname__ = "_DummyThread"
    return _DummyThread


_mine = {name: value for name, value in globals().items() if name.startswith("__")}
rebuild(globals())
globals().update(_mine)
assert sys.modules[__name__].__dict__ is globals()
