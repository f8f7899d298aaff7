"""Suspensions: one wait of one task, its answer and its state machine.

This module knows tasks and the reactor's clock. It must never switch: the hub parks
and wakes tasks.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from twisted.python.failure import Failure

from txgreenwsgi._states import TransitionTable

from .errors import TimedOut
from .running import require_task
from .thread_calls import in_task_of_thread, tasks_of_threads

if TYPE_CHECKING:
    from .tasks import Task

__all__ = ["SUSPENSION_TRANSITIONS", "Suspension", "exception_of"]

# The states of a suspension. "answered": answered before its task waited on it.
UNANSWERED, ANSWERED, WAITING, OVER = "unanswered", "answered", "waiting", "over"

#: State -> event -> next state. "answer" is `resume` or `throw`; "refuse": the hub
#: cannot park the task now. Late answers and interruptions leave the state as it is:
#: their sources cannot know that the wait has ended.
SUSPENSION_TRANSITIONS = TransitionTable(
    "a suspension",
    {
        UNANSWERED: {
            "wait": WAITING,
            "refuse": OVER,
            "answer": ANSWERED,
            "abandon": UNANSWERED,
        },
        # A signal handler can answer it after the wait has begun; then the hub refuses
        # to park.
        ANSWERED: {
            "wait": OVER,
            "refuse": OVER,
            "answer": ANSWERED,
            "abandon": ANSWERED,
        },
        WAITING: {"answer": OVER, "abandon": OVER},
        OVER: {"answer": OVER, "abandon": OVER},
    },
)


class EarlierTraceback(Exception):
    """The traceback of a failure, as text; the cause of a re-raised exception."""


def exception_of(failure: Failure) -> BaseException:
    """Return the exception of `failure`, with its traceback."""
    value = cast("BaseException", failure.value)
    # A Deferred that failed before the wait keeps no frames alive: up to Twisted 25
    # it keeps only their names.
    if failure.tb is None and failure.frames and value.__cause__ is None:
        value.__cause__ = EarlierTraceback(f"\n{failure.getTraceback()}")
    return value.with_traceback(failure.tb)


class Suspension:
    """One wait of one task: `wait()` parks it, `resume()` or `throw()` ends the wait.

    An answer before the wait is kept. Each suspension serves one wait. Made by
    `txgreenwsgi.suspend()`.

    The attributes are read-only outside `_switching`.

    Attributes:
        task: the task that made the suspension and waits on it; None once the
            wait has ended.
        state: "unanswered", "answered" (before the wait), "waiting" or "over".
        answered: True when `resume` or `throw` ended the wait; False when a
            timeout or an interruption did.
        error: the exception that `wait` is about to raise; None otherwise.
        since: time at which the task parked, by the reactor's clock, in seconds;
            later by the stalls that `discount` has excluded.
        idle_since: time of the last progress of what the task waits for; `since`
            without any.
        waiting_on: the object or text that tables of tasks show.
    """

    __slots__ = (
        "_hub",
        "_progress",
        "_timeout_seconds",
        "_value",
        "answered",
        "error",
        "since",
        "state",
        "task",
        "waiting_on",
    )

    def __init__(
        self,
        task: Task[object],
        waiting_on: object = "suspend()",
        timeout_seconds: float | None = None,
    ) -> None:
        # None once the wait has ended, to avoid a cycle: an application's frame may
        # hold the suspension, a traceback the frame, and a failed task the traceback.
        self.task: Task[object] | None = task
        self._hub = task.hub
        self.state = UNANSWERED
        self._value: object = None
        self.error: BaseException | Failure | None = None
        self._timeout_seconds = timeout_seconds
        self.waiting_on = waiting_on
        self.since = self._progress = 0.0
        self.answered = False

    def wait(self) -> Any:
        """Park the task until it is resumed; return the value given to `resume`.

        May park. Call from the task that made this suspension.

        Raises:
            TimedOut: the timeout given to `suspend` has expired.
            BaseException: the error given to `throw`, or an interruption of the
                task (a timeout around the wait, a cancellation, a disconnect).
            RuntimeError: it was waited on before, or was made by another task.
        """
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            return in_task(self.wait)
        task = require_task("suspend().wait()")
        if task is not self.task:
            raise self._wrong_wait_error(task)
        hub = self._hub
        try:
            if self.state is ANSWERED:
                self.state = OVER
            elif self._timeout_seconds is None:
                hub.park(task, self)
            else:
                seconds = self._timeout_seconds
                call = hub.call_at_timeout(seconds, self.expire, seconds)
                try:
                    hub.park(task, self)
                finally:
                    if call.active():
                        call.cancel()
        finally:
            self.task = None
        error, value = self.error, self._value
        self._value = None
        if error is not None:
            self.error = None
            try:
                if isinstance(error, Failure):
                    # Not by raiseException(), whose frame would hold the Failure,
                    # which holds the traceback, which holds the frame.
                    raise exception_of(error)
                raise error
            finally:
                del error
        return value

    def resume(self, value: object = None) -> bool:
        """End the wait with `value`. Call from any thread; never parks.

        Returns:
            True if this call ends the wait; False if the wait has already ended.
            From another thread: True if the wait was open at the time of the call.
        """
        return self._answer(value, None)

    def throw(self, error: BaseException | Failure) -> bool:
        """End the wait by raising `error` in the task; otherwise as `resume`."""
        return self._answer(None, error)

    def _answer(self, value: object, error: BaseException | Failure | None) -> bool:
        state = self.state
        if state is not WAITING and state is not UNANSWERED:
            return False
        hub = self._hub
        if get_ident() != hub.thread:
            hub.call_from_thread(self._answer, value, error)
            return True
        self.answered = True
        self._value = value
        self.error = error
        if state is UNANSWERED:
            self.state = ANSWERED
        else:
            self.state = OVER
            self._wake()
        return True

    def expire(self, seconds: float) -> None:
        """End the wait with `TimedOut`. Call from the reactor greenlet."""
        self.abandon(TimedOut(f"timed out after {seconds:g} seconds"))

    def abandon(self, error: BaseException) -> None:
        """Interrupt the wait with `error`. Call from the reactor's thread.

        A no-op unless the task is parked on it. `answered` stays False, which makes
        the waiter cancel the operation that it waited on.
        """
        if self.state is WAITING:
            self.state = OVER
            self.error = error
            self._wake()

    def discount(self, seconds: float, now: float) -> None:
        """Exclude a stall of the reactor from the duration of the wait.

        Args:
            seconds: the duration of the stall.
            now: its end, by the reactor's clock.
        """
        self.since = min(now, self.since + seconds)
        self._progress = min(now, self._progress + seconds)

    def progressed(self, when: float) -> None:
        """Note progress at `when`, by the reactor's clock. Limits on idle time restart.

        The duration of the wait still counts from `since`.
        """
        self._progress = max(self._progress, when)

    @property
    def idle_since(self) -> float:
        return max(self.since, self._progress)

    def _wake(self) -> None:
        task = self.task
        assert task is not None, "a parked suspension has its task"
        self._hub.wake(task)

    def _wrong_wait_error(self, task: Task[object]) -> RuntimeError:
        if self.task is None:
            return RuntimeError(
                "this suspension was waited on before: call suspend() for a new one"
            )
        return RuntimeError(
            f"a suspension made by {self.task!r} was waited on by {task!r}: "
            "call suspend() in the task that is to wait"
        )
