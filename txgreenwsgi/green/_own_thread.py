"""One real thread that makes the calls of one object, in order, for tasks that wait.

For libraries in C that block by themselves and whose objects want their calls one
after the other: a connection of SQLite. Tasks park until their call is made, real
threads block. What is abandoned is dropped if it has not begun, and interrupted if
it has.

It knows threads and tasks. It must never know what is called.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.greenlets import Suspension

from ._locks import _real_lock, thread_ident
from ._place import here, may_park, raise_in_main
from ._thread import _of_the_reactor, _real

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from twisted.internet.interfaces import IDelayedCall

    from txgreenwsgi._switching.greenlets import Task

__all__ = ["OwnThread"]

#: An interruption that comes between two steps of a call is lost on it, so it is
#: repeated while the call goes on.
INTERRUPT_AGAIN_SECONDS = 0.05


class _Call:
    """One call: made in the thread, waited for elsewhere."""

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
        function: Callable[..., Any],
        args: tuple[Any, ...],
        wake: Callable[[], object] | None,
        unstoppable: bool,
    ) -> None:
        self.function: Callable[..., Any] | None = function
        self.args = args
        # The callbacks of whoever calls see the caller's contextvars.
        self.context: Context | None = copy_context()
        self.unstoppable = unstoppable
        self.begun = self.dropped = self.ended = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.wake = wake

    def make(self) -> None:
        """Make it, unless it was dropped. In the thread."""
        function, context = self.function, self.context
        assert function is not None and context is not None
        self.begun = True
        try:
            if not self.dropped:
                self.result = context.run(function, *self.args)
        except BaseException as error:
            self.error = error
        # Nothing of the caller's outlives the call in this thread.
        self.function = self.context = None
        self.args = ()

    def tell(self) -> None:
        """Wake whoever waits."""
        wake, self.wake = self.wake, None
        if wake is not None:
            wake()

    def outcome(self) -> Any:
        """What the call returned, or raised."""
        error, self.error = self.error, None
        result, self.result = self.result, None
        if error is not None:
            try:
                raise error
            finally:
                del error, self
        return result


class OwnThread:
    """A thread that ends with the object it was made for.

    Args:
        interrupt: stops the call that is being made; called from other threads.
    """

    def __init__(self, interrupt: Callable[[], object]) -> None:
        self._interrupt = interrupt
        self._calls: deque[_Call | None] = deque()
        # Released once for any number of calls.
        self._bell: Any = _real_lock()
        self._bell.acquire()
        # So that an interruption hits the call that it is meant for. No finalizer
        # takes it: a call is handed over without.
        self._mutex: Any = _real_lock()
        self._current: _Call | None = None
        self._ended = False
        self._pid = os.getpid()
        self.ident: int = 0
        _real.start_new_thread(self._make_calls, ())

    @property
    def is_here(self) -> bool:
        """Is this it? Then a callback calls the object that called it."""
        return self.ident == thread_ident()

    @property
    def is_lost(self) -> bool:
        """Is this the child of a fork, which has not got the thread?"""
        return self._pid != os.getpid()

    @property
    def idle(self) -> bool:
        """Is no call being made, nor waiting to be made?"""
        return self._current is None and not self._calls

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        unstoppable: bool = False,
        undo: Callable[[], object] | None = None,
    ) -> Any:
        """Call `function(*args)` in the thread; what it returns. May park.

        Outside tasks it blocks until then.

        Args:
            function: what to call.
            args: its arguments.
            unstoppable: make the call even if nobody waits for it any more, and
                never interrupt it. A task that is being killed, which cannot wait,
                leaves it to the thread and gets None.
            undo: called in the thread, after the call and before any other, when
                nobody waits for the call any more. It may not have been made.

        Raises:
            BaseException: what `function` raises, or what interrupts the task.
        """
        task = here()
        if task is not None and not may_park():
            task = None
        if task is None:
            return self._block_for(function, args, unstoppable, undo)
        if not unstoppable:
            task.raise_pending()
        elif task.dying:
            self.leave(function, *args)
            return None
        suspension = Suspension(task, getattr(function, "__qualname__", function))
        call = _Call(function, args, suspension.resume, unstoppable)
        self._hand_over(call)
        try:
            suspension.wait()
            raise_in_main(task)
        except BaseException:
            self._abandon(call, task, undo)
            raise
        return call.outcome()

    def _block_for(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        unstoppable: bool,
        undo: Callable[[], object] | None,
    ) -> Any:
        done: Any = _real_lock()
        done.acquire()
        call = _Call(function, args, done.release, unstoppable)
        self._hand_over(call)
        try:
            done.acquire()
        except BaseException:  # Ctrl-C
            self._abandon(call, None, undo)
            raise
        return call.outcome()

    def leave(self, function: Callable[..., Any], *args: Any) -> None:
        """Have `function(*args)` called, and do not wait. Never parks.

        May be called from a finalizer.
        """
        self._hand_over(_Call(function, args, None, True))

    def end(self) -> None:
        """End the thread when it has made all its calls. Never parks."""
        self._calls.append(None)
        self._ring()

    def _hand_over(self, call: _Call) -> None:
        self._calls.append(call)
        self._ring()
        if self._ended:
            self._make_the_rest()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    # In the thread.

    def _make_calls(self) -> None:
        self.ident = thread_ident()
        # Whoever counts threads counts those that the program began.
        _of_the_reactor.add(self.ident)
        try:
            self._make_calls_until_end()
        finally:
            _of_the_reactor.discard(self.ident)

    def _make_calls_until_end(self) -> None:
        while True:
            self._bell.acquire()
            while self._calls:
                call = self._calls.popleft()
                if call is None:
                    self._ended = True
                    self._make_the_rest()
                    return
                self._current = call
                call.make()
                with self._mutex:
                    call.ended = True
                    self._current = None
                call.tell()
                # While the thread waits it holds nothing of what it did.
                del call

    def _make_the_rest(self) -> None:
        """Make what was handed over when the thread was ending. In any thread."""
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                return
            if call is not None:
                call.make()
                call.ended = True
                call.tell()

    def _abandon(
        self,
        call: _Call,
        task: Task[Any] | None,
        undo: Callable[[], object] | None,
    ) -> None:
        """Nobody waits for `call` any more. Never parks."""
        if call.unstoppable:
            return
        call.dropped = True
        if undo is not None:
            self.leave(undo)
        if self._interrupt_call(call) and task is not None:
            self._interrupt_later(call, task)

    def _interrupt_later(self, call: _Call, task: Task[Any]) -> None:
        hub = task.hub
        delayed: IDelayedCall | None = None

        def again() -> None:
            nonlocal delayed
            if delayed is None or self._interrupt_call(call):
                delayed = hub.reactor.callLater(INTERRUPT_AGAIN_SECONDS, again)

        def stop() -> None:
            if delayed is not None and delayed.active():
                delayed.cancel()

        again()
        # Nobody is left to be woken.
        call.wake = partial(hub.call_from_thread, stop)
        if call.ended:
            stop()

    def _interrupt_call(self, call: _Call) -> bool:
        """Interrupt `call` if it is being made; is it?"""
        with self._mutex:
            if call.ended or not call.begun:
                return False
            self._interrupt()
            return True
