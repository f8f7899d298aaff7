"""Green `_thread`: threads that are tasks, and the locks between them.

A thread started in a task is a task of the same reactor. A thread started anywhere else
is a real thread. It knows tasks and threads, and the differences between versions of
the module. It must never know `threading`, which is built on it.
"""

from __future__ import annotations

import os
import sys
import threading as _threading
from contextvars import Context
from functools import wraps
from itertools import count
from traceback import print_exception
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from greenlet import GreenletExit

from txgreenwsgi._parking.idents import ident_of
from txgreenwsgi._parking.locks import Lock, RLock, get_ident
from txgreenwsgi._parking.real_threads import (
    add_reactor_thread,
    discard_reactor_thread,
    main_ident,
    reactor_threads,
    thread_ident,
)
from txgreenwsgi._parking.real_threads import original as _original
from txgreenwsgi._parking.task_local import local as _local
from txgreenwsgi._parking.waits import main_task
from txgreenwsgi._switching.errors import Cancelled
from txgreenwsgi._switching.greenlets import Task
from txgreenwsgi._switching.running import current_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from txgreenwsgi._switching.greenlets import Hub

__all__ = [
    "REPLACED",
    "LockType",
    "RLock",
    "_local",
    "allocate",
    "allocate_lock",
    "exit",
    "get_ident",
    "start_new",
    "start_new_thread",
]

# All other names are those of the original.
globals().update(
    {
        name: value
        for name, value in vars(_original).items()
        if not (name.startswith("__") or name in globals())
    }
)


class lock(Lock):  # noqa: N801 - the name in the standard library
    """The type of the locks that `allocate_lock()` makes."""

    __slots__ = ()

    if sys.version_info < (3, 13):

        def __new__(cls) -> lock:
            """Raise TypeError, as the original does: call `allocate_lock()`."""
            raise TypeError("cannot create '_thread.lock' instances")


class _AllocateLock:
    """The callable `allocate_lock`, which as a class attribute is not bound."""

    __module__ = "_thread"
    __name__ = __qualname__ = "allocate_lock"

    def __call__(self) -> lock:
        made = object.__new__(lock)
        made.__init__()  # type: ignore[misc]
        return made

    def __reduce__(self) -> str:
        """Pickle it by name, as a function: managers of `multiprocessing` do that."""
        return "allocate_lock"


# trio requires that its RLock is the one of `_thread`, which serves signal handlers.
lock.__module__ = RLock.__module__ = "_thread"
LockType = lock
TIMEOUT_MAX = _original.TIMEOUT_MAX
error = RuntimeError
# Instances of this class are always real threads: only code that bound the class before
# patching uses it, such as the reactor's thread pool.
_RealThread = _threading.Thread
_alive: set[Task[Any]] = set()
#: True if threads of the main thread's reactor run on when the reactor has stopped.
#: Set when `green.exits` is installed, which ends them.
outlives_reactor = False
# Larger than any kernel thread id, and never reused.
_next_native_id = count(1 << 32)
_native_ids: WeakKeyDictionary[Task[object], int] = WeakKeyDictionary()


allocate_lock = allocate = _AllocateLock()


def exit() -> None:  # noqa: A001 - the name in the standard library
    """Raise SystemExit, which ends the thread without a traceback."""
    raise SystemExit


exit_thread = exit


def _count() -> int:
    """Return the number of threads and tasks, without main and reactor threads."""
    return int(_original._count()) + len(_alive) - len(reactor_threads)


def _counted(function: Callable[..., object]) -> Callable[..., object]:
    """Wrap the function of a real thread so that reactor threads are recorded."""
    if not isinstance(getattr(function, "__self__", None), _RealThread):
        return function

    def run(*args: object, **kwargs: object) -> object:
        ident = thread_ident()
        add_reactor_thread(ident)
        try:
            return function(*args, **kwargs)
        finally:
            discard_reactor_thread(ident)

    return run


def _hub_for(function: Callable[..., object]) -> Hub | None:
    """Return the hub that will run `function` in a task; None for a real thread."""
    task = current_task()
    if task is None or isinstance(getattr(function, "__self__", None), _RealThread):
        return None
    return task.hub


def _spawn(
    hub: Hub,
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    at_end: Callable[[], object] | None = None,
) -> Task[None]:
    def run() -> None:
        try:
            function(*args, **kwargs)
        except (SystemExit, Cancelled, GreenletExit):
            return  # exit() was called, or the task was cancelled or killed
        except BaseException as error:
            _report_unraisable(_Unraisable(function, error))

    # A thread starts with an empty context.
    task = Task(hub, run, context=Context(), name=getattr(function, "__qualname__", ""))
    _alive.add(task)
    if outlives_reactor and hub.thread == main_ident:
        hub.threads.add(task)

    def ended() -> None:
        _alive.discard(task)
        hub.threads.discard(task)
        if at_end is not None:
            at_end()

    task.call_at_end(ended)
    try:
        hub.spawn(task)
    except RuntimeError:
        _alive.discard(task)
        hub.threads.discard(task)
        raise RuntimeError("can't start new thread") from None
    return task


class _Unraisable:
    """The argument of `sys.unraisablehook`."""

    def __init__(self, function: object, error: BaseException) -> None:
        self.exc_type = type(error)
        self.exc_value: BaseException | None = error
        self.exc_traceback = error.__traceback__
        self.err_msg: str | None = "Exception ignored in thread started by"
        self.object: object = function
        if sys.version_info >= (3, 13):
            self.err_msg = f"{self.err_msg} {function!r}"
            self.object = None


def _report_unraisable(unraisable: _Unraisable) -> None:
    if sys.unraisablehook is not sys.__unraisablehook__:
        sys.unraisablehook(unraisable)
        return
    # The default hook accepts only instances made by the interpreter.
    message = unraisable.err_msg
    if unraisable.object is not None:
        message = f"{message}: {unraisable.object!r}"
    if sys.stderr is not None:
        print(message, file=sys.stderr)
    print_exception(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)


def start_new_thread(
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object] | None = None,
    /,
) -> int:
    """Run `function(*args, **kwargs)` in a new thread and return its ident.

    Never parks.
    """
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")
    hub = _hub_for(function)
    if hub is None:
        if kwargs is None:
            return int(_original.start_new_thread(_counted(function), args))
        return int(_original.start_new_thread(_counted(function), args, kwargs))
    return ident_of(_spawn(hub, function, args, dict(kwargs or {})))


start_new = start_new_thread


def get_native_id() -> int:
    """Return the kernel's id of this thread; in a task, a unique id of the task."""
    task = current_task()
    if task is None or task is main_task():
        return int(_original.get_native_id())
    number = _native_ids.get(task)
    if number is None:
        number = _native_ids[task] = next(_next_native_id)
    return number


if hasattr(_original, "_set_sentinel"):  # until 3.12

    def _set_sentinel() -> Any:
        """Return a lock that is released when the current thread ends."""
        task = current_task()
        if task is None or task is main_task():
            return _original._set_sentinel()
        made = allocate_lock()
        reference = ref(made)

        def ended() -> None:
            sentinel = reference()
            if sentinel is not None and sentinel.locked():
                sentinel.release()

        task.call_at_end(ended)
        return made


if hasattr(_original, "_ThreadHandle"):  # since 3.13
    _joined_at_exit: set[_ThreadHandle] = set()
    #: The handles of all tasks that run.
    _running: set[_ThreadHandle] = set()

    class _ThreadHandle:
        """The handle of a joinable thread, real or a task."""

        def __init__(self, real: Any = None) -> None:
            self._real = _original._ThreadHandle() if real is None else real
            self._task: Task[None] | None = None
            self._done: Any = None
            self._starting = False
            self._ident = 0

        @property
        def ident(self) -> int:
            return self._ident or int(self._real.ident)

        def begin(self, hub: Hub, function: Callable[[], object], daemon: bool) -> None:
            """Run `function` in a task of `hub`."""
            if self._done is not None or self._starting:
                raise RuntimeError("thread already started")
            self._done = Lock()
            self._done.acquire()
            if not daemon:
                _joined_at_exit.add(self)
            _running.add(self)
            try:
                self._task = _spawn(hub, function, (), {}, self._set_done)
            except BaseException:
                self._done.release()
                _running.discard(self)
                _joined_at_exit.discard(self)
                self._done = None
                raise
            self._ident = ident_of(self._task)

        def is_done(self) -> bool:
            if self._done is None:
                return bool(self._real.is_done())
            return not self._done.locked()

        def _set_done(self) -> None:
            if self._done is None:
                self._real._set_done()
                return
            _running.discard(self)
            _joined_at_exit.discard(self)
            if self._done.locked():
                self._done.release()

        def leave_to_parent(self) -> None:
            """Count as ended: this is the child of a fork, in which the task is dead.

            A no-op for the task that has forked.
            """
            if self._task is not current_task():
                _running.discard(self)
                _joined_at_exit.discard(self)
                self._done = Lock()  # the waiters of the other one are dead too

        def join(self, timeout: float | None = None) -> None:
            if self._done is None:
                task = current_task()
                if task is None or self._real.is_done():
                    self._real.join(timeout)
                else:
                    _join_real_thread(self._real, timeout)
                return
            if self._task is not None and self._task is current_task():
                raise RuntimeError("Cannot join current thread")
            if timeout is not None and timeout < 0:
                timeout = None
            if self._done.acquire(True, -1 if timeout is None else timeout):
                self._done.release()

    def _join_real_thread(handle: Any, timeout: float | None) -> None:
        """Join a real thread, whose end cannot wake a task, with `offload`."""
        from .offload import offload

        offload(handle.join, timeout)

    def _make_thread_handle(ident: int) -> _ThreadHandle:
        """Return the handle of a thread that was not started by this module."""
        task = current_task()
        real = _original._make_thread_handle(main_ident if task else ident)
        handle = _ThreadHandle(real)
        handle._ident = ident
        return handle

    _process = os.getpid()

    def _get_main_thread_ident() -> int:
        """Return the ident of the main thread; of the current one after a fork.

        `threading` calls it in the child of a fork for the thread that has forked,
        which may be a task.
        """
        if os.getpid() != _process:
            return get_ident()
        return int(_original._get_main_thread_ident())

    def start_joinable_thread(
        function: Callable[[], object],
        handle: _ThreadHandle | None = None,
        daemon: bool = True,
    ) -> _ThreadHandle:
        """Run `function()` in a new joinable thread. Never parks."""
        if not callable(function):
            raise TypeError("thread function must be callable")
        if handle is None:
            handle = _ThreadHandle()
        elif not isinstance(handle, _ThreadHandle):
            # The handle was made before patching.
            return _original.start_joinable_thread(
                function, handle=handle, daemon=daemon
            )
        hub = _hub_for(function)
        if hub is None:
            _original.start_joinable_thread(
                _counted(function), handle=handle._real, daemon=daemon
            )
        else:
            handle.begin(hub, function, daemon)
        return handle

    def _shutdown() -> None:
        """Wait for all non-daemon threads."""
        if current_task() is None:
            _original._shutdown()
            return
        while others := {
            handle for handle in _joined_at_exit if handle._task is not current_task()
        }:
            others.pop().join()

    def _leave_threads_to_parent() -> None:
        for handle in list(_running):
            handle.leave_to_parent()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_leave_threads_to_parent)


def make_join_green() -> None:
    """Let tasks wait for real threads that were created before patching."""
    join = _RealThread.join
    if hasattr(join, "__wrapped__"):
        return

    @wraps(join)
    def join_in_thread(self: _threading.Thread, timeout: float | None = None) -> None:
        from .offload import offload

        if self.is_alive():
            offload(join, self, timeout)
        else:
            join(self, timeout)

    _RealThread.join = join_in_thread  # type: ignore[method-assign]


def set_real_threads_aside(threading: dict[str, Any]) -> list[Any]:
    """Exclude real threads from the wait of `threading._shutdown` in a task.

    They include the reactor's thread pool, which ends after the tasks.

    Args:
        threading: the namespace of the module.

    Returns:
        The argument for `join_real_threads`.
    """
    locks = threading.get("_shutdown_locks", set())
    real = [held for held in locks if not isinstance(held, Lock)]
    locks.difference_update(real)
    return real


def join_real_threads(locks: list[Any]) -> None:
    """Block until all real non-daemon threads have ended."""
    for lock in locks:
        lock.acquire()
        lock.release()
    if hasattr(_original, "_shutdown"):
        _original._shutdown()


def is_thread(task: Task[object] | None) -> bool:
    """Return whether `task` was started as a thread."""
    return task in _alive


for _function in (get_ident, get_native_id, start_new_thread, exit, _local):
    _function.__module__ = "_thread"

#: The names that differ from the original; `txgreenwsgi.monkey` patches them.
REPLACED: dict[str, Any] = {
    name: value
    for name, value in list(globals().items())
    if not name.startswith("__") and getattr(_original, name, value) is not value
}
