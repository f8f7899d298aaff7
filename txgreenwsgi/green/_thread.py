"""Green `_thread`: threads that are tasks, and the locks between them.

Started in a task, a thread is a task of the same reactor. Started anywhere else
it is a real thread. It knows tasks and threads, and the differences between
versions of the module. It must never know `threading`, which is built on it.
"""

from __future__ import annotations

import _thread as _standard
import sys
import threading as _threading
from contextvars import Context
from itertools import count
from traceback import print_exception
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from greenlet import GreenletExit

from txgreenwsgi._switching.errors import Cancelled
from txgreenwsgi._switching.greenlets import Task

from . import _locks
from ._locals import local as _local
from ._locks import Lock, RLock, get_ident
from ._place import here, main_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from txgreenwsgi._switching.greenlets import Hub

__all__ = [
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

# The module as it was, whatever `txgreenwsgi.monkey` makes of it later.
_real: Any = SimpleNamespace(**vars(_standard))
# The rest of it is the same here.
globals().update(
    {
        name: value
        for name, value in vars(_standard).items()
        if not (name.startswith("__") or name in globals())
    }
)


class lock(Lock):  # noqa: N801 - the name in the standard library
    """A lock as `allocate_lock()` makes it."""

    __slots__ = ()

    if sys.version_info < (3, 13):

        def __new__(cls) -> lock:
            """Refused: it is made by `allocate_lock()`, as ever."""
            raise TypeError("cannot create '_thread.lock' instances")


class _AllocateLock:
    """`allocate_lock`: called, it makes a lock; in a class it is no method."""

    __module__ = "_thread"
    __name__ = __qualname__ = "allocate_lock"

    def __call__(self) -> lock:
        made = object.__new__(lock)
        made.__init__()  # type: ignore[misc]
        return made


lock.__module__ = "_thread"
LockType = lock
TIMEOUT_MAX = _real.TIMEOUT_MAX
error = RuntimeError
#: The class whose instances are real threads for ever: that of those who bound
#: it before anything was patched, such as the reactor's thread pool.
_RealThread = _threading.Thread
_real_excepthook = getattr(_real, "_excepthook", None)
_alive: set[Task[Any]] = set()
_of_the_reactor: set[int] = set()
# Above all that the kernel gives, and never given twice.
_next_native_id = count(1 << 32)
_native_ids: WeakKeyDictionary[Task[Any], int] = WeakKeyDictionary()


allocate_lock = allocate = _AllocateLock()


def exit() -> None:  # noqa: A001 - the name in the standard library
    """Raise SystemExit, which ends the thread silently."""
    raise SystemExit


exit_thread = exit


def _count() -> int:
    """How many threads run, tasks included; not the main one, nor the reactor's."""
    return int(_real._count()) + len(_alive) - len(_of_the_reactor)


def _noted(function: Callable[..., object]) -> Callable[..., object]:
    """`function` for a real thread; the reactor's own are noted while they run."""
    if not isinstance(getattr(function, "__self__", None), _RealThread):
        return function

    def run(*args: Any, **kwargs: Any) -> object:
        ident = _real.get_ident()
        _of_the_reactor.add(ident)
        try:
            return function(*args, **kwargs)
        finally:
            _of_the_reactor.discard(ident)

    return run


def _hub_for(function: Callable[..., object]) -> Hub | None:
    """Whose task `function` is to be; None for a real thread."""
    task = here()
    if task is None or isinstance(getattr(function, "__self__", None), _RealThread):
        return None
    return task.hub


def _spawn(
    hub: Hub,
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    at_end: Callable[[], object] | None = None,
) -> Task[None]:
    def run() -> None:
        try:
            function(*args, **kwargs)
        except (SystemExit, Cancelled, GreenletExit):
            return  # a thread that was told to end
        except BaseException:
            kind, value, traceback = sys.exc_info()
            _tell_unraisable(
                _Unraisable(
                    (kind, value, traceback, "Exception ignored in thread", function)
                )
            )

    # A thread begins with an empty context.
    task = Task(hub, run, context=Context(), name=getattr(function, "__qualname__", ""))
    _alive.add(task)

    def ended() -> None:
        _alive.discard(task)
        if at_end is not None:
            at_end()

    task.call_at_end(ended)
    try:
        hub.spawn(task)
    except RuntimeError:
        _alive.discard(task)
        raise RuntimeError("can't start new thread") from None
    return task


class _Unraisable:
    """What `sys.unraisablehook` is given."""

    def __init__(self, told: tuple[Any, ...]) -> None:
        self.exc_type, self.exc_value, self.exc_traceback = told[:3]
        self.err_msg = told[3] + " started by"
        self.object = told[4]
        if sys.version_info >= (3, 13):
            self.err_msg += f" {told[4]!r}"
            self.object = None


def _tell_unraisable(told: _Unraisable) -> None:
    if sys.unraisablehook is not sys.__unraisablehook__:
        sys.unraisablehook(told)
        return
    # The interpreter's own takes nothing but what the interpreter itself makes.
    about = told.err_msg
    if told.object is not None:
        about += f": {told.object!r}"
    if sys.stderr is not None:
        print(about, file=sys.stderr)
    print_exception(told.exc_type, told.exc_value, told.exc_traceback)


def start_new_thread(
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    /,
) -> int:
    """Run `function(*args, **kwargs)` in a new thread; its ident. Never parks."""
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")
    hub = _hub_for(function)
    if hub is None:
        if kwargs is None:
            return int(_real.start_new_thread(_noted(function), args))
        return int(_real.start_new_thread(_noted(function), args, kwargs))
    return id(_spawn(hub, function, args, dict(kwargs or {})))


start_new = start_new_thread


def get_native_id() -> int:
    """The kernel's number of this thread; of a task, one of its own."""
    task = here()
    if task is None or task is main_task():
        return int(_real.get_native_id())
    number = _native_ids.get(task)
    if number is None:
        number = _native_ids[task] = next(_next_native_id)
    return number


if hasattr(_real, "_set_sentinel"):  # until 3.12

    def _set_sentinel() -> Any:
        """A lock that is released when the current thread ends."""
        task = here()
        if task is None or task is main_task():
            return _real._set_sentinel()
        made = allocate_lock()
        reference = ref(made)

        def ended() -> None:
            sentinel = reference()
            if sentinel is not None and sentinel.locked():
                sentinel.release()

        task.call_at_end(ended)
        return made


if hasattr(_real, "_ThreadHandle"):  # since 3.13
    _joined_at_exit: set[_ThreadHandle] = set()

    class _ThreadHandle:
        """A thread that can be joined: a real one's handle, or a task's."""

        def __init__(self, real: Any = None) -> None:
            self._real = _real._ThreadHandle() if real is None else real
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
            try:
                self._task = _spawn(hub, function, (), {}, self._set_done)
            except BaseException:
                self._done.release()
                _joined_at_exit.discard(self)
                self._done = None
                raise
            self._ident = id(self._task)

        def is_done(self) -> bool:
            if self._done is None:
                return bool(self._real.is_done())
            return not self._done.locked()

        def _set_done(self) -> None:
            if self._done is None:
                self._real._set_done()
                return
            _joined_at_exit.discard(self)
            if self._done.locked():
                self._done.release()

        def join(self, timeout: float | None = None) -> None:
            if self._done is None:
                task = here()
                if task is None or self._real.is_done():
                    self._real.join(timeout)
                else:
                    _join_real_thread(self._real, timeout)
                return
            if self._task is not None and self._task is here():
                raise RuntimeError("Cannot join current thread")
            if timeout is not None and timeout < 0:
                timeout = None
            if self._done.acquire(True, -1 if timeout is None else timeout):
                self._done.release()

    def _join_real_thread(handle: Any, timeout: float | None) -> None:
        """Wait in a task for a real thread, which tells nobody of its end."""
        from .offload import offload

        offload(handle.join, timeout)

    def _make_thread_handle(ident: int) -> _ThreadHandle:
        """The handle of a thread that was not started here."""
        task = here()
        real = _real._make_thread_handle(_locks.main_ident if task else ident)
        handle = _ThreadHandle(real)
        handle._ident = ident
        return handle

    def start_joinable_thread(
        function: Callable[[], object],
        handle: _ThreadHandle | None = None,
        daemon: bool = True,
    ) -> _ThreadHandle:
        """Run `function()` in a new thread that can be joined. Never parks."""
        if not callable(function):
            raise TypeError("thread function must be callable")
        if handle is None:
            handle = _ThreadHandle()
        elif not isinstance(handle, _ThreadHandle):
            # Made before anything was patched.
            return _real.start_joinable_thread(function, handle=handle, daemon=daemon)
        hub = _hub_for(function)
        if hub is None:
            _real.start_joinable_thread(
                _noted(function), handle=handle._real, daemon=daemon
            )
        else:
            handle.begin(hub, function, daemon)
        return handle

    def _shutdown() -> None:
        """Wait for all threads that are no daemons."""
        if here() is None:
            _real._shutdown()
            return
        while _joined_at_exit:
            next(iter(_joined_at_exit)).join()


def set_real_threads_aside(threading: dict[str, Any]) -> list[Any]:
    """Have `threading._shutdown`, called in a task, not wait for real threads.

    The reactor's pool is among them, which ends after the tasks.

    Returns:
        What `join_real_threads` takes.
    """
    locks = threading.get("_shutdown_locks", set())
    real = [held for held in locks if not isinstance(held, Lock)]
    locks.difference_update(real)
    return real


def join_real_threads(locks: list[Any]) -> None:
    """Block until all real threads that are no daemons have ended."""
    for lock in locks:
        lock.acquire()
        lock.release()
    if hasattr(_real, "_shutdown"):
        _real._shutdown()


def is_thread(task: Task[Any] | None) -> bool:
    """Was `task` begun as a thread?"""
    return task in _alive


for _function in (get_ident, get_native_id, start_new_thread, exit, _local):
    _function.__module__ = "_thread"
