"""One wait of one task, and what ends it.

It knows tasks and the reactor's clock. It must never switch: parking and waking
are the hub's.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from twisted.python.failure import Failure

from .errors import TimedOut
from .running import require_task

if TYPE_CHECKING:
    from typing import NoReturn

    from .tasks import Task

__all__ = ["Suspension"]

# A suspension is made ("new"); it may be answered before anybody waits on it
# ("answered"), or its task parks on it ("parked"); then it is used up ("over").
NEW, ANSWERED, PARKED, OVER = "new", "answered", "parked", "over"


class EarlierTraceback(Exception):
    """Where a failure came from, in text; the cause of an exception raised anew."""


def value_of(failure: Failure) -> BaseException:
    """What a failure would raise, its traceback with it."""
    value = cast("BaseException", failure.value)
    # A Deferred that failed before anybody waited keeps no frames alive: up to
    # Twisted 25 it keeps their names only.
    if failure.tb is None and failure.frames and value.__cause__ is None:
        value.__cause__ = EarlierTraceback(f"\n{failure.getTraceback()}")
    return value.with_traceback(failure.tb)


class Suspension:
    """One wait of one task: `wait()` parks it, `resume()` or `throw()` ends that.

    It may be answered before the task waits; the answer is kept. It is good for
    one wait. Made by `txgreenwsgi.suspend()`.

    The attributes are read-only outside `_switching`.

    Attributes:
        task: the task that made the suspension and waits on it; None once the
            wait has ended.
        answered: True when `resume` or `throw` ended the wait; False when a
            timeout or an interruption did.
        since: time at which the task parked, by the reactor's clock, in seconds.
        waiting_on: the object or text that tables of tasks show.
    """

    __slots__ = (
        "_error",
        "_hub",
        "_state",
        "_timeout_seconds",
        "_value",
        "answered",
        "since",
        "task",
        "waiting_on",
    )

    def __init__(
        self,
        task: Task[Any],
        waiting_on: object = "suspend()",
        timeout_seconds: float | None = None,
    ) -> None:
        # None once it is used up: an application's frame may hold the suspension,
        # a traceback the frame, and a failed task the traceback.
        self.task: Task[Any] | None = task
        self._hub = task.hub
        self._state = NEW
        self._value: Any = None
        self._error: BaseException | Failure | None = None
        self._timeout_seconds = timeout_seconds
        self.waiting_on = waiting_on
        self.since = 0.0
        self.answered = False

    def wait(self) -> Any:
        """Park the task until it is resumed; the value given to `resume`.

        May park. Call from the task that made this suspension.

        Raises:
            TimedOut: the timeout given to `suspend` is over.
            BaseException: what was given to `throw`, or what interrupted the
                task (a timeout around it, a cancellation, a lost client).
            RuntimeError: it was waited on before.
        """
        task = require_task("suspend().wait()")
        if task is not self.task:
            self._refuse(task)
        hub = self._hub
        try:
            if self._state is ANSWERED:
                self._state = OVER
            elif self._timeout_seconds is None:
                hub.park(task, self)
            else:
                seconds = self._timeout_seconds
                call = hub.reactor.callLater(seconds, self.expire, seconds)
                try:
                    hub.park(task, self)
                finally:
                    if call.active():
                        call.cancel()
        finally:
            self.task = None
        error, value = self._error, self._value
        self._value = None
        if error is not None:
            self._error = None
            try:
                if isinstance(error, Failure):
                    # Not by raiseException(), whose frame would hold the Failure,
                    # which holds the traceback, which holds the frame.
                    raise value_of(error)
                raise error
            finally:
                del error
        return value

    def resume(self, value: Any = None) -> bool:
        """End the wait with `value`. Call from any thread; never parks.

        Returns:
            Whether that is what ends the wait. False when it was answered or
            left before. From another thread: whether it was still open when
            asked.
        """
        return self._answer(value, None)

    def throw(self, error: BaseException | Failure) -> bool:
        """End the wait by raising `error` in the task; as `resume` otherwise."""
        return self._answer(None, error)

    def _answer(self, value: Any, error: BaseException | Failure | None) -> bool:
        state = self._state
        if state is not PARKED and state is not NEW:
            return False
        hub = self._hub
        if get_ident() != hub.thread:
            hub.call_from_thread(self._answer, value, error)
            return True
        self.answered = True
        self._value = value
        self._error = error
        if state is NEW:
            self._state = ANSWERED
        else:
            self._wake()
        return True

    def expire(self, seconds: float) -> None:
        """End the wait by `TimedOut`. Call from the reactor greenlet."""
        self.abandon(TimedOut(f"timed out after {seconds:g} seconds"))

    def abandon(self, error: BaseException) -> None:
        """End the wait by `error`, which is no answer. Call from the reactor's thread.

        Whoever waits sees `answered` False and cancels what it waited on.
        """
        if self._state is PARKED:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        self._state = OVER
        task = self.task
        assert task is not None, "a parked suspension has its task"
        self._hub.wake(task)

    def _refuse(self, task: Task[Any]) -> NoReturn:
        if self.task is None:
            raise RuntimeError(
                "this suspension was waited on before: call suspend() for a new one"
            )
        raise RuntimeError(
            "a suspension is waited on by the task that made it; "
            f"this one was made by {self.task!r}, and {task!r} waits on it: "
            "call suspend() in the task that is to wait"
        )
