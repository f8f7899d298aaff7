"""A worker thread that serializes the calls of one object while tasks wait.

For C libraries that block and whose objects need serialized calls, such as an SQLite
connection. A task parks until its call has returned; a real thread blocks. If the
caller is interrupted, a queued call is dropped, and a running call is interrupted.

It knows threads and tasks. It must never know the called functions.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from txgreenwsgi._switching.greenlets import Suspension
from txgreenwsgi._switching.running import current_task

from .real_threads import (
    add_reactor_thread,
    discard_reactor_thread,
    real_lock,
    start_real_thread,
    thread_ident,
)
from .waits import may_park, raise_pending_in_main

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from twisted.internet.interfaces import IDelayedCall

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["DedicatedThread"]

T = TypeVar("T")

#: Interval at which an interruption is repeated until the call ends, because one that
#: arrives between two steps of a call is lost.
REPEAT_INTERRUPT_SECONDS = 0.05


class _Call:
    """One queued or running call.

    Attributes:
        function: the function; None after the call.
        args: its arguments.
        context: a copy of the caller's contextvars, for callbacks.
        unstoppable: True if the call is made even if its caller was interrupted.
        begun: True once the thread has begun the call.
        dropped: True once the caller was interrupted; the call is skipped.
        ended: True once the call has returned or was skipped.
        result: the return value.
        error: the exception that was raised.
        wake: wakes the caller.
    """

    __slots__ = (
        "args",
        "begun",
        "context",
        "dropped",
        "ended",
        "error",
        "function",
        "result",
        "unstoppable",
        "wake",
    )

    def __init__(
        self,
        function: Callable[..., object],
        args: tuple[object, ...],
        wake: Callable[[], object] | None,
        unstoppable: bool,
    ) -> None:
        self.function: Callable[..., object] | None = function
        self.args = args
        self.context: Context | None = copy_context()
        self.unstoppable = unstoppable
        self.begun = self.dropped = self.ended = False
        self.result: object = None
        self.error: BaseException | None = None
        self.wake = wake

    def run(self) -> None:
        """Make the call unless it was dropped. Called in the dedicated thread."""
        function, context = self.function, self.context
        assert function is not None and context is not None
        self.begun = True
        try:
            if not self.dropped:
                self.result = context.run(function, *self.args)
        except BaseException as error:
            self.error = error
        # Drop the references to the caller's objects.
        self.function = self.context = None
        self.args = ()

    def notify(self) -> None:
        """Wake the caller."""
        wake, self.wake = self.wake, None
        if wake is not None:
            wake()

    def outcome(self) -> Any:
        """Return the result of the call, or raise its exception."""
        error, self.error = self.error, None
        result, self.result = self.result, None
        if error is not None:
            try:
                raise error
            finally:
                del error, self
        return result


class DedicatedThread:
    """A worker thread for the calls of one object, ended by `end`.

    Args:
        interrupt: interrupts the call in progress; called from other threads.
    """

    def __init__(self, interrupt: Callable[[], object]) -> None:
        self._interrupt = interrupt
        self._calls: deque[_Call | None] = deque()
        # Released once for any number of new calls.
        self._wake_up = real_lock()
        self._wake_up.acquire()
        # Ensures that an interruption reaches the intended call. No finalizer takes
        # it: adding a call to the queue needs no lock.
        self._mutex = real_lock()
        self._current: _Call | None = None
        self._ended = False
        self._pid = os.getpid()
        self.ident: int = 0
        start_real_thread(self._run, ())

    @property
    def is_current(self) -> bool:
        """True in this thread, where a callback may use the object directly."""
        return self.ident == thread_ident()

    @property
    def is_lost(self) -> bool:
        """True in the child of a fork, where the thread does not exist."""
        return self._pid != os.getpid()

    @property
    def idle(self) -> bool:
        """True if no call is in progress or queued."""
        return self._current is None and not self._calls

    @property
    def has_ended(self) -> bool:
        """True once the thread has made its last call."""
        return self._ended

    def call(
        self,
        function: Callable[..., T],
        *args: object,
        unstoppable: bool = False,
        undo: Callable[[], object] | None = None,
    ) -> T:
        """Call `function(*args)` in the thread and return its result. May park.

        Outside tasks it blocks.

        Args:
            function: the function to call.
            args: its arguments.
            unstoppable: make the call even if its caller is interrupted, and never
                interrupt it. A task that is being killed, which cannot park, queues
                the call and gets None.
            undo: called in the thread if the caller was interrupted, before the next
                call. The call itself may not have been made.

        Raises:
            BaseException: the exception of `function`, or the task's interruption.
        """
        task = current_task()
        if task is not None and not may_park():
            task = None
        if task is None:
            return self._call_blocking(function, args, unstoppable, undo)
        if not unstoppable:
            task.raise_pending()
        elif task.dying:
            self.call_later(function, *args)
            return None  # type: ignore[return-value]
        suspension = Suspension(task, getattr(function, "__qualname__", function))
        call = _Call(function, args, suspension.resume, unstoppable)
        self._enqueue(call)
        try:
            suspension.wait()
            raise_pending_in_main(task)
        except BaseException:
            self._abandon(call, task, undo)
            raise
        result: T = call.outcome()
        return result

    def _call_blocking(
        self,
        function: Callable[..., T],
        args: tuple[object, ...],
        unstoppable: bool,
        undo: Callable[[], object] | None,
    ) -> T:
        done = real_lock()
        done.acquire()
        call = _Call(function, args, done.release, unstoppable)
        self._enqueue(call)
        try:
            done.acquire()
        except BaseException:  # Ctrl-C
            self._abandon(call, None, undo)
            raise
        result: T = call.outcome()
        return result

    def call_later(self, function: Callable[..., object], *args: object) -> None:
        """Queue `function(*args)` without waiting for it. Never parks.

        May be called from a finalizer.
        """
        self._enqueue(_Call(function, args, None, True))

    def end(self) -> None:
        """End the thread after its queued calls. Never parks."""
        self._calls.append(None)
        self._signal()

    def _enqueue(self, call: _Call) -> None:
        self._calls.append(call)
        self._signal()
        if self._ended:
            self._run_remaining()

    def _signal(self) -> None:
        with suppress(RuntimeError):  # the thread was signalled already
            self._wake_up.release()

    # In the thread.

    def _run(self) -> None:
        self.ident = thread_ident()
        add_reactor_thread(self.ident)
        try:
            self._run_until_end()
        finally:
            discard_reactor_thread(self.ident)

    def _run_until_end(self) -> None:
        while True:
            self._wake_up.acquire()
            while self._calls:
                call = self._calls.popleft()
                if call is None:
                    self._ended = True
                    self._run_remaining()
                    return
                self._current = call
                call.run()
                with self._mutex:
                    call.ended = True
                    self._current = None
                call.notify()
                # Drop the reference to the last call while the thread waits.
                del call

    def _run_remaining(self) -> None:
        """Make the calls queued while the thread was ending. In any thread."""
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                return
            if call is not None:
                call.run()
                call.ended = True
                call.notify()

    def _abandon(
        self,
        call: _Call,
        task: Task[object] | None,
        undo: Callable[[], object] | None,
    ) -> None:
        """Drop or interrupt a call whose caller was interrupted. Never parks."""
        if call.unstoppable:
            return
        call.dropped = True
        if undo is not None:
            self.call_later(undo)
        if self._interrupt_call(call) and task is not None:
            self._interrupt_until_ended(call, task)

    def _interrupt_until_ended(self, call: _Call, task: Task[object]) -> None:
        hub = task.hub
        delayed: IDelayedCall | None = None

        def again() -> None:
            nonlocal delayed
            if delayed is None or self._interrupt_call(call):
                delayed = hub.reactor.callLater(REPEAT_INTERRUPT_SECONDS, again)

        def stop() -> None:
            if delayed is not None and delayed.active():
                delayed.cancel()

        again()
        # The caller no longer waits; the end of the call stops the repetition.
        call.wake = partial(hub.call_from_thread, stop)
        if call.ended:
            stop()

    def _interrupt_call(self, call: _Call) -> bool:
        """Interrupt `call` if it is in progress; return whether it was."""
        with self._mutex:
            if call.ended or not call.begun:
                return False
            self._interrupt()
            return True
