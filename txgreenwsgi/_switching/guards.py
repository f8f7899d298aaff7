"""Guards: one clear error for each call that would deadlock or corrupt state.

This module knows threads, signals and the garbage collector. It must never switch.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from functools import partial, wraps
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFromThreads,
    IReactorThreads,
)
from twisted.internet.threads import blockingCallFromThread
from twisted.python import threadable

from .errors import NotInGreenlet
from .forks import call_or_end_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.threadpool import ThreadPool

__all__ = [
    "check_can_park",
    "clear_handler_cache",
    "find_handler_codes",
    "guard_reactor",
    "outside_task_message",
    "refuse_free_threading",
    "refuse_other_thread",
    "require_seconds",
    "wrong_thread_message",
]

#: Ident of the thread in which the collector is running finalizers; None otherwise.
collecting_thread: int | None = None


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    global collecting_thread
    collecting_thread = get_ident() if phase == "start" else None


gc.callbacks.append(_note_collection)


# Looking up all signal handlers of the interpreter takes 4 us, so the result is
# cached for a second.
HANDLER_CACHE_SECONDS = 1.0
_handler_codes: frozenset[CodeType] = frozenset()
_cached_until = 0.0


def clear_handler_cache() -> None:
    """Look up the signal handlers again at the next wait."""
    global _cached_until
    _cached_until = 0.0


def find_handler_codes() -> frozenset[CodeType]:
    """Return the code objects of the application's signal handlers."""
    codes = set()
    for number in signal.valid_signals():
        handler: object = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
            # A number, a builtin, or a callable object.
            handler = vars(type(handler)).get("__call__")
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        # Handlers of Twisted and txgreenwsgi run no application code.
        module = getattr(handler, "__module__", None) or ""
        if code is not None and not module.startswith(("twisted.", "txgreenwsgi.")):
            codes.add(code)
    return frozenset(codes)


def check_can_park() -> None:
    """Raise if the caller runs in a finalizer or signal handler. Call in a task.

    Parking there would suspend the interrupted code.

    Raises:
        NotInGreenlet: a finalizer or signal handler is running.
    """
    global _handler_codes, _cached_until
    if collecting_thread is not None and collecting_thread == get_ident():
        raise NotInGreenlet(
            "the garbage collector is running: a __del__ method or a weakref "
            "callback cannot wait; hand the work to spawn() instead"
        )
    now = monotonic()
    if now > _cached_until:
        _cached_until = now + HANDLER_CACHE_SECONDS
        _handler_codes = find_handler_codes()
    if _handler_codes:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code in _handler_codes:
                raise NotInGreenlet(
                    f"the signal handler {frame.f_code.co_name!r} is running: it "
                    "interrupted a task at an arbitrary point and cannot wait; call "
                    "reactor.callFromThread(spawn, function) in it instead"
                )
            frame = frame.f_back


def outside_task_message(what: str) -> str:
    """Return the error message for the call `what` outside a task."""
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        return (
            f"{what} was called in the thread {thread.name!r}, which has no reactor: "
            "call the blocking function itself, or use "
            "twisted.internet.threads.blockingCallFromThread to reach the reactor"
        )
    return (
        f"{what} was called outside a task: only code in a greenlet of txgreenwsgi "
        "can wait, and this is the reactor's own greenlet (a callback, a delayed "
        "call, dataReceived) or no reactor is running. Call it from a WSGI "
        "application, or run the function with spawn(), in_greenlet() or react(); "
        "in callbacks use the Deferred itself"
    )


def wrong_thread_message(what: str) -> str:
    """Return the error message for the call `what` outside the reactor's thread."""
    return (
        f"{what} was called in the thread {threading.current_thread().name!r}, and "
        "the reactor runs in another thread: use "
        "reactor.callFromThread(spawn, function)"
    )


def refuse_other_thread(what: str) -> None:
    """Raise if the reactor runs in a thread other than this one.

    Args:
        what: the call, for the message.

    Raises:
        NotInGreenlet: the reactor runs in another thread.
    """
    if threadable.ioThread not in (None, get_ident()):
        raise NotInGreenlet(wrong_thread_message(what))


def refuse_free_threading() -> None:
    """Raise if this Python runs without its global interpreter lock.

    Raises:
        RuntimeError: it has no lock; greenlets and threads would corrupt each other.
    """
    gil_enabled = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    if gil_enabled is not None and not gil_enabled():
        raise RuntimeError(
            "txgreenwsgi does not support free-threaded Python: use the standard "
            "build, or enable the global interpreter lock with PYTHON_GIL=1"
        )


def require_seconds(what: str, seconds: float) -> None:
    """Raise unless `seconds` is a number >= 0.

    Args:
        what: the called function, for the message.
        seconds: the value to check.

    Raises:
        ValueError: the value is negative or NaN.
        TypeError: the value is not a number.
    """
    try:
        if seconds >= 0:
            return
    except TypeError:
        raise TypeError(
            f"{what} takes a number of seconds >= 0, not {seconds!r}"
        ) from None
    raise ValueError(f"{what} takes a number of seconds >= 0, not {seconds!r}")


def guard_reactor(
    reactor: IReactorTime,
    current_task: Callable[[], object],
    in_reactor_thread: Callable[[], bool],
) -> None:
    """Make reactor calls that would deadlock inside a task raise instead.

    `reactor.iterate()` and `reactor.run()` in a task would run the event loop inside
    the task's greenlet, where no other task can be resumed;
    `blockingCallFromThread` in the reactor's own thread would wait for itself. The
    child of a fork made in the reactor's thread pool exits with the call that made it.

    Args:
        reactor: its methods are replaced.
        current_task: returns the current task, or None.
        in_reactor_thread: returns True in the reactor's thread.
    """

    def refusing(name: str, remedy: str) -> None:
        original = getattr(reactor, name)

        @wraps(original)
        def guarded(*args: object, **kwargs: object) -> object:
            if current_task() is not None:
                raise NotInGreenlet(
                    f"reactor.{name}() was called inside a task, where it would "
                    f"deadlock: {remedy}"
                )
            return original(*args, **kwargs)

        setattr(reactor, name, guarded)

    if IReactorCore.providedBy(reactor):
        refusing("iterate", "use txgreenwsgi.sleep(0) to let the reactor run")
        refusing("run", "the reactor is running already, and a task can simply wait")
    if IReactorFromThreads.providedBy(reactor):
        call_from_thread = reactor.callFromThread
        blocking_code = blockingCallFromThread.__code__

        @wraps(call_from_thread)
        def guarded_call(
            function: Callable[..., object], *args: object, **kwargs: object
        ) -> None:
            if sys._getframe(1).f_code is blocking_code and in_reactor_thread():
                raise NotInGreenlet(
                    "blockingCallFromThread was called in the reactor's own thread, "
                    "where it would wait for itself forever: in a task use "
                    "txgreenwsgi.wait(deferred)"
                )
            call_from_thread(function, *args, **kwargs)

        setattr(reactor, "callFromThread", guarded_call)  # noqa: B010 - a method to mypy
    if IReactorThreads.providedBy(reactor):
        get_thread_pool = reactor.getThreadPool

        @wraps(get_thread_pool)
        def guarded_pool() -> ThreadPool:
            pool: ThreadPool = get_thread_pool()
            if "callInThreadWithCallback" not in vars(pool):
                guarded = partial(_call_in_pool, pool.callInThreadWithCallback)
                setattr(pool, "callInThreadWithCallback", guarded)  # noqa: B010
            return pool

        setattr(reactor, "getThreadPool", guarded_pool)  # noqa: B010 - as above


def _call_in_pool(
    call: Callable[..., None],
    on_result: Callable[[bool, object], object] | None,
    function: Callable[..., object],
    *args: object,
    **kwargs: object,
) -> None:
    call(on_result, call_or_end_child, function, *args, **kwargs)
