"""One function that runs in a real thread while its task is parked.

The task hands the function to a thread and parks. Every wait of the function (a read
of the body, a write, `wait`, `sleep`) is made in the task while the thread blocks. So
backpressure, deadlines, disconnects, timeouts and cancellation are those of the task:
an interruption is raised at the next wait that the thread has made.

It knows tasks and threads. It must never know which function it runs.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextvars import copy_context
from threading import get_ident
from time import monotonic
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
)

from greenlet import GreenletExit, getcurrent

from txgreenwsgi._parking.real_threads import real_lock
from txgreenwsgi._states import TransitionTable
from txgreenwsgi._switching.forks import Forked, end_child
from txgreenwsgi._switching.greenlets import Suspension
from txgreenwsgi._switching.tasks import ALL_SHIELDS
from txgreenwsgi._switching.thread_calls import (
    in_task,
    in_task_of_thread,
    tasks_of_threads,
)

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from contextvars import Context
    from typing import NoReturn

    from txgreenwsgi._switching.greenlets import Task

    class Threads(Protocol):
        """The threads that run calls."""

        def submit(self, call: ThreadCall[Any]) -> None:
            """Have a thread begin `call`."""

        def ended(self, call: ThreadCall[Any]) -> None:
            """Note that a submitted call has ended, or was dropped."""


__all__ = ["CALL", "ThreadCall"]

#: No thread has begun the function.
QUEUED: Final = "queued"
#: A thread runs the function.
RUNNING: Final = "running"
#: The task was interrupted before a thread had begun the function: it never runs.
DROPPED: Final = "dropped"
#: The task was killed while the thread runs the function.
ABANDONED: Final = "abandoned"
#: The function has returned.
ENDED: Final = "ended"

CALL: Final = TransitionTable(
    "a call in a thread",
    {
        QUEUED: {"begin": RUNNING, "drop": DROPPED, "abandon": DROPPED},
        RUNNING: {"end": ENDED, "abandon": ABANDONED},
        # A thread takes a dropped call from the queue, and ends it at once.
        DROPPED: {"end": ENDED, "abandon": DROPPED},
        ABANDONED: {"end": ENDED},
        ENDED: {"abandon": ENDED},
    },
)

_BEGUN: Final = CALL.after(QUEUED, "begin")
_DROPPED: Final = CALL.after(QUEUED, "drop")
_ON_ABANDON: Final = CALL.moves("abandon")
_ON_END: Final = CALL.moves("end")

#: Maximum time for which a thread keeps the reactor from running: it may wait for
#: another thread, which needs the reactor.
HOLD_SECONDS: Final = 0.5

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


class _CallInTask:
    """One call that a thread has made in its task.

    Attributes:
        function: the function to call.
        args: its positional arguments.
        kwargs: its keyword arguments.
        result: its return value.
        error: the exception that it raised.
        done: released after the call; None if the thread does not wait for it.
        hold: the lock on which the reactor's thread blocks after the call, until the
            thread's next call releases it; None if it does not block.
    """

    __slots__ = ("args", "done", "error", "function", "hold", "kwargs", "result")

    def __init__(
        self,
        function: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, Any],
        done: LockType | None,
        hold: LockType | None,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.result: object = None
        self.error: BaseException | None = None
        self.done = done
        self.hold = hold


class ThreadCall(Generic[T]):
    """A function for a thread, and the calls that the thread has made in its task.

    Args:
        task: the current task, which will call `run`.
        route: the kind of call, for statistics.

    Attributes:
        task: as given.
        route: as given.
        state: one of the states of `CALL`.
        in_progress: whether the task is making a call of the thread.
        timeouts: number of `timeout()` blocks that the thread is in.
        seconds: time for which the function has run in the thread, set when it has
            returned. Its calls in the task do not count.
        in_task_seconds: the duration of these calls.
    """

    __slots__ = (
        "_calls",
        "_context",
        "_error",
        "_function",
        "_hold",
        "_ident",
        "_interruption",
        "_lock",
        "_notified",
        "_notify",
        "_pid",
        "_result",
        "_suspension",
        "_unreported",
        "in_progress",
        "in_task_seconds",
        "route",
        "seconds",
        "state",
        "task",
        "timeouts",
    )

    def __init__(
        self,
        task: Task[object],
        route: str,
    ) -> None:
        self.task = task
        self.route = route
        self.state = QUEUED
        # Guards `state`, which the task and the thread change.
        self._lock = real_lock()
        self.in_progress = False
        self.timeouts = 0
        self.seconds = 0.0
        self.in_task_seconds = 0.0
        self._function: Callable[[], T] | None = None
        # The Context of the task itself, not a copy: what a coroutine sets in the
        # task is seen in the thread, and the reverse.
        self._context: Context | None = getcurrent().gr_context
        if self._context is None:  # a child greenlet of the task
            self._context = copy_context()
        self._calls: deque[_CallInTask | None] = deque()
        self._suspension: Suspension | None = None
        self._notify = task.hub.call_from_thread
        # Whether the reactor will call `_wake` soon. A late True costs nothing: the
        # thread sets it after it has appended a call, `_wake` clears it before the
        # task takes the calls.
        self._notified = False
        self._ident = 0
        self._pid = os.getpid()
        self._result: T | None = None
        self._error: BaseException | None = None
        # The failure of a posted call, see `raise_unreported`.
        self._unreported: BaseException | None = None
        # The last interruption of the thread by `interrupt`.
        self._interruption: BaseException | None = None
        # A held lock: the reactor's thread blocks on it until the next call.
        self._hold: LockType | None = None

    def __repr__(self) -> str:
        """Return the line that the thread runs."""
        frame = sys._current_frames().get(self._ident)
        if self.state not in (RUNNING, ABANDONED) or frame is None:
            return "a request thread"
        code = frame.f_code
        return f"its thread, at {code.co_filename}:{frame.f_lineno} in {code.co_name}"

    # In the task.

    def run(self, threads: Threads, function: Callable[[], T]) -> T:
        """Have one of `threads` call `function` and return its result. Parks.

        The function is called inside the Context of the task.

        Raises:
            BaseException: the exception of the function; or, while no thread has begun
                it, the interruption of the task: the function is never called then.
        """
        task = self.task
        self._function = function
        threads.submit(self)
        try:
            self._wait_for_begin(task)
            task.raise_shield(ALL_SHIELDS)
            try:
                while not self._make_calls(task):
                    self._park(task)
            finally:
                task.lower_shield(ALL_SHIELDS)
        except GreenletExit:
            self._abandon()
            raise
        finally:
            threads.ended(self)
        return self._outcome()

    def _wait_for_begin(self, task: Task[object]) -> None:
        """Park until the thread wants something. An interruption drops the call."""
        try:
            while not self._calls:
                self._park(task)
        except BaseException as error:
            if isinstance(error, GreenletExit) or self._dropped():
                raise
            # The function runs: its next wait raises the interruption.
            task.interrupt(error, task.shield_depth)

    def _dropped(self) -> bool:
        """Drop the call unless a thread has begun it; return whether it was dropped."""
        with self._lock:
            if self.state is not QUEUED:
                return False
            self.state = _DROPPED
            return True

    def _park(self, task: Task[object]) -> None:
        self._suspension = suspension = Suspension(task, self)
        try:
            suspension.wait()
        finally:
            self._suspension = None

    def _make_calls(self, task: Task[object]) -> bool:
        """Make the calls that have arrived; return True after the last one."""
        calls = self._calls
        while calls:
            call = calls.popleft()
            if call is None:
                return True
            task.lower_shield(ALL_SHIELDS)
            self.in_progress = True
            try:
                call.result = call.function(*call.args, **call.kwargs)
            except GreenletExit:
                call.error = _killed_error()
                raise
            except BaseException as error:
                call.error = error
            finally:
                self.in_progress = False
                task.raise_shield(ALL_SHIELDS)
                if call.done is not None:
                    self._hold = call.hold
                    call.done.release()
                elif call.error is not None:
                    if self._unreported is None:
                        self._unreported = call.error
                    call.error = None
            del call
            hold = self._hold
            if hold is not None:
                hold.acquire(True, HOLD_SECONDS)
                self._hold = None
        return False

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` at the thread's next wait, at the latest at the end of `run`.

        Call in the task, from a posted call.
        """
        self._interruption = error
        self.task.interrupt(error, self.task.shield_depth)

    def _outcome(self) -> T:
        # An exception may be false: its class may have a length.
        error = self._unreported if self._error is None else self._error
        late, self._interruption = self._interruption, None
        if late is not None and self.task.withdraw(late) and error is None:
            error = late
        self._error = self._unreported = None
        if error is not None:
            try:
                raise error
            finally:
                del error, self
        result, self._result = self._result, None
        return cast("T", result)

    def _abandon(self) -> None:
        """Leave the thread without its task: its next call raises GreenletExit."""
        with self._lock:
            self.state = _ON_ABANDON[self.state]
        self._refuse_calls()

    def _refuse_calls(self) -> None:
        while self._calls:
            try:
                call = self._calls.popleft()
            except IndexError:  # the other thread was faster
                return
            if call is not None:
                call.error = _killed_error()
                if call.done is not None:
                    call.done.release()

    def _wake(self) -> None:
        """Tell the parked task that a call has arrived. In the reactor greenlet."""
        self._notified = False
        suspension = self._suspension
        if suspension is not None:
            suspension.resume()

    # In the thread.

    @property
    def in_child(self) -> bool:
        """Whether this is the child of a fork that the function has made."""
        return os.getpid() != self._pid

    def begin(self) -> None:
        """Call the function; a no-op if the call was dropped."""
        with self._lock:
            if self.state is not QUEUED:
                return
            self.state = _BEGUN
        self._ident = ident = get_ident()
        tasks_of_threads[ident] = self
        thread = getcurrent()
        # Not Context.run: the task may be inside another one of this Context.
        thread.gr_context = self._context
        self._context = None
        function, self._function = self._function, None
        try:
            assert function is not None, "a call runs once"
            self._result = function()
        except BaseException as error:
            # Without the frame of this method, which holds the call, which holds the
            # error: a cycle.
            traceback = error.__traceback__
            assert traceback is not None, "an exception that was raised has one"
            self._error = error.with_traceback(traceback.tb_next)
        finally:
            # A fork in the function has cleared the table in the child.
            tasks_of_threads.pop(ident, None)
            thread.gr_context = None
            del function, thread

    def end(self) -> None:
        """Tell the task that the function has returned."""
        with self._lock:
            self.state = _ON_END[self.state]
        self._calls.append(None)
        self._end_hold()
        self._wake_task()

    def end_child(self) -> NoReturn:
        """Exit the child of a fork whose function has returned, as a thread would."""
        end_child(self._error)

    def __call__(
        self, function: Callable[P, U], /, *args: P.args, **kwargs: P.kwargs
    ) -> U:
        """Call `function` in the task; block until it has returned.

        The application may keep an object that uses this call, such as the `write` of
        an earlier response. Outside the function of this call, `function` is called in
        the task of the running thread, or directly in a task.

        Raises:
            BaseException: what `function` raised.
            GreenletExit: the task was killed, because its reactor stops.
        """
        if in_task_of_thread() is not self:
            return in_task(function, *args, **kwargs)
        return self._call_in_task(function, args, kwargs, None)

    def and_hold(
        self, function: Callable[P, U], /, *args: P.args, **kwargs: P.kwargs
    ) -> U:
        """Call `function` in the task; then keep the reactor from running.

        Until the thread's next call in its task, and no longer than `HOLD_SECONDS`. For
        code that calls the reactor: what it does until it waits is done, as in a task,
        in one turn of the reactor.
        """
        self.task.uses_reactor = True
        hold = real_lock()
        hold.acquire()
        return self._call_in_task(function, args, kwargs, hold)

    def _call_in_task(
        self,
        function: Callable[..., U],
        args: tuple[object, ...],
        kwargs: dict[str, Any],
        hold: LockType | None,
    ) -> U:
        # A new lock: a finalizer may make a call while another one waits.
        done = real_lock()
        done.acquire()
        call = _CallInTask(function, args, kwargs, done, hold)
        self._send(call)
        began = monotonic()
        done.acquire()
        self.in_task_seconds += monotonic() - began
        if call.error is not None:
            try:
                raise call.error
            finally:
                call.error = None
                del call, self
        return cast("U", call.result)

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have the task call `function`, without waiting for it.

        Its failure is raised by `raise_unreported`, or at the end of `run`. Calls are
        made in the order of this method and `__call__`.
        """
        if in_task_of_thread() is not self:
            in_task(function, *args)
            return
        self._send(_CallInTask(function, args, {}, None, None))

    def post_later(self, function: Callable[..., object], *args: object) -> None:
        """Post a call together with the next one, or at the next `send_posted`."""
        if in_task_of_thread() is not self:
            in_task(function, *args)
            return
        self._append(_CallInTask(function, args, {}, None, None))

    def send_posted(self) -> None:
        """Send the calls of `post_later`. A no-op if there are none. Any thread."""
        if self._calls:
            self._wake_task()

    def raise_unreported(self) -> None:
        """Raise the first failure of the posted calls, once."""
        unreported = self._unreported
        if unreported is not None:
            self._unreported = None
            try:
                raise unreported
            finally:
                del unreported, self

    def _send(self, call: _CallInTask) -> None:
        self._append(call)
        if self.state is not ABANDONED:
            self._wake_task()

    def _append(self, call: _CallInTask) -> None:
        if self.in_child:
            raise Forked(
                "the request belongs to the parent process: the child of a fork can "
                "neither read its body nor send its response"
            )
        self._calls.append(call)
        self._end_hold()
        if self.state is ABANDONED:
            self._refuse_calls()

    def _end_hold(self) -> None:
        hold = self._hold
        if hold is not None and hold.locked():
            hold.release()

    def _wake_task(self) -> None:
        if not self._notified:
            self._notified = True
            self._notify(self._wake)


def _killed_error() -> GreenletExit:
    # The exception that kills a task: `except Exception` does not swallow it.
    return GreenletExit("the server has stopped: this thread has no task any more")
