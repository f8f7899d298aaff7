"""Calls that would hang or corrupt, each told by one clear error.

It knows threads, signals and the collector. It must never switch.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
from functools import partial, wraps
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.internet.threads import blockingCallFromThread
from twisted.python import threadable

from .errors import NotInGreenlet

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

__all__ = [
    "guard_reactor",
    "outside_task_message",
    "refuse_bad_moment",
    "refuse_free_threading",
    "refuse_other_thread",
    "require_seconds",
    "wrong_thread_message",
]

#: The ident of the thread in which the collector is running finalizers, or None.
collecting_thread: int | None = None


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    global collecting_thread
    collecting_thread = get_ident() if phase == "start" else None


gc.callbacks.append(_note_collection)


# Asking the interpreter for all its signal handlers takes 4 us, so the answer
# is kept for a second.
_HANDLERS_KEPT_SECONDS = 1.0
_handler_codes: frozenset[CodeType] = frozenset()
_look_again_at = 0.0


def _find_handler_codes() -> frozenset[CodeType]:
    codes = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
            # A number, a builtin, or an object that can be called.
            handler = vars(type(handler)).get("__call__")
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        # Twisted's and ours run no code of anybody else.
        module = getattr(handler, "__module__", None) or ""
        if code is not None and not module.startswith(("twisted.", "txgreenwsgi.")):
            codes.add(code)
    return frozenset(codes)


def refuse_bad_moment() -> None:
    """Raise when this is no moment to park, though the place is right.

    Raises:
        NotInGreenlet: a finalizer called by the collector, or a signal handler,
            is about to wait: it would stop whatever it interrupted.
    """
    global _handler_codes, _look_again_at
    if collecting_thread is not None and collecting_thread == get_ident():
        raise NotInGreenlet(
            "the garbage collector is running: a __del__ method or a weakref "
            "callback cannot wait; hand the work to spawn() instead"
        )
    now = monotonic()
    if now > _look_again_at:
        _look_again_at = now + _HANDLERS_KEPT_SECONDS
        _handler_codes = _find_handler_codes()
    if _handler_codes:
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code in _handler_codes:
                raise NotInGreenlet(
                    f"the signal handler {frame.f_code.co_name!r} is running: it "
                    "interrupted a task anywhere and cannot wait; call "
                    "reactor.callFromThread(spawn, function) in it instead"
                )
            frame = frame.f_back


def outside_task_message(what: str) -> str:
    """The message for `what` that was called where no task is running."""
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        return (
            f"{what} was called in the thread {thread.name!r}, which has no reactor: "
            "a thread may simply block; to reach the reactor use "
            "twisted.internet.threads.blockingCallFromThread"
        )
    return (
        f"{what} was called outside a task: only code that runs in a greenlet of "
        "txgreenwsgi can wait, and this is the reactor's own (a callback, a delayed "
        "call, dataReceived) or there is no reactor at all. Call it from a WSGI "
        "application, or run the function by spawn(), in_greenlet() or react(); "
        "in callbacks use the Deferred itself"
    )


def wrong_thread_message(what: str) -> str:
    """The message for `what` that was called in a thread that is not the reactor's."""
    return (
        f"{what} was called in the thread {threading.current_thread().name!r}, and "
        "the reactor runs in another: hand the function over by "
        "reactor.callFromThread(spawn, function)"
    )


def refuse_other_thread(what: str) -> None:
    """Raise when the reactor runs in another thread than this.

    Raises:
        NotInGreenlet: it does, and `what` was asked for here.
    """
    if threadable.ioThread not in (None, get_ident()):
        raise NotInGreenlet(wrong_thread_message(what))


def refuse_free_threading() -> None:
    """Raise in a Python that runs without its global lock.

    Raises:
        RuntimeError: it does; greenlets and threads would corrupt each other.
    """
    gil_enabled = getattr(sys, "_is_gil_enabled", None)  # since Python 3.13
    if gil_enabled is not None and not gil_enabled():
        raise RuntimeError(
            "txgreenwsgi does not support free-threaded Python: use the ordinary "
            "build, or switch the global lock on with PYTHON_GIL=1"
        )


def require_seconds(what: str, seconds: Any) -> None:
    """Raise unless `seconds` is a number that is not negative.

    Raises:
        ValueError: it is negative or NaN.
        TypeError: it is no number.
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
    reactor: Any,
    current_task: Callable[[], object],
    in_reactor_thread: Callable[[], bool],
) -> None:
    """Make calls that would deadlock `reactor` inside a task raise instead.

    `reactor.iterate()` and `reactor.run()` in a task would turn the reactor
    inside the task's greenlet, where no other task can be resumed, and
    `blockingCallFromThread` in the reactor's own thread waits for itself.
    """

    def refusing(name: str, remedy: str) -> None:
        original = getattr(reactor, name)

        @wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if current_task() is not None:
                raise NotInGreenlet(
                    f"reactor.{name}() was called inside a task, where it would "
                    f"deadlock: {remedy}"
                )
            return original(*args, **kwargs)

        setattr(reactor, name, guarded)

    if IReactorCore.providedBy(reactor):
        refusing("iterate", "use txgreenwsgi.sleep(0) to let the reactor have a turn")
        refusing("run", "the reactor is running already; just wait")
    if IReactorFromThreads.providedBy(reactor):
        call_from_thread = reactor.callFromThread
        blocking_code = blockingCallFromThread.__code__

        @wraps(call_from_thread)
        def guarded_call(*args: Any, **kwargs: Any) -> Any:
            if sys._getframe(1).f_code is blocking_code and in_reactor_thread():
                raise NotInGreenlet(
                    "blockingCallFromThread was called in the reactor's own thread, "
                    "where it would wait for itself for ever: in a task use "
                    "txgreenwsgi.wait(deferred)"
                )
            return call_from_thread(*args, **kwargs)

        setattr(reactor, "callFromThread", guarded_call)  # noqa: B010 - a method to mypy
