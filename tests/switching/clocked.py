"""Tests of tasks on a clock that moves when told to: no reactor, no sleeping."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import gettrace, settrace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi import sleep, wait
from txgreenwsgi._switching.greenlets import Task, hub_of

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def after(seconds: float, value: T) -> T:
    """Sleep, then return something."""
    sleep(seconds)
    return value


class ClockTestCase(SynchronousTestCase):
    """A clock and its hub; what a test leaves parked is ended after it."""

    def setUp(self) -> None:
        """Make them."""
        self.clock = self.make_clock()
        self.hub = hub_of(self.clock)
        self.addCleanup(self.hub.close)

    def make_clock(self) -> Clock:
        """What the hub takes for its reactor."""
        return Clock()

    def start(self, function: Callable[..., T], *args: Any) -> Task[T]:
        """A task that has run until it first parked."""
        task: Task[T] = Task(self.hub, function, args, name=function.__qualname__)
        self.hub.start(task)
        return task

    def spawn(self, function: Callable[..., T], *args: Any) -> Task[T]:
        """A task that begins at the next turn."""
        task: Task[T] = Task(self.hub, function, args, name=function.__qualname__)
        self.hub.spawn(task)
        return task

    def turn(self, turns: int = 1) -> None:
        """Let the reactor have its turn."""
        for _ in range(turns):
            self.clock.advance(0)

    def result_of(self, task: Task[T]) -> T:
        """What a task that has ended returned, or raised."""
        self.assertTrue(task.done, f"{task} has not ended")
        result: T = self.successResultOf(task.deferred())
        return result

    def error_of(self, task: Task[Any], kind: type[BaseException]) -> BaseException:
        """What a task that has ended failed with."""
        self.assertTrue(task.done, f"{task} has not ended")
        self.failureResultOf(task.deferred())  # counts as handled
        # Not the Failure's value: Twisted up to version 25 drops its traceback.
        error = task.error
        assert error is not None
        self.assertIsInstance(error, kind)
        return error

    def assert_nothing_left(self) -> None:
        """No task, no delayed call."""
        self.assertEqual(list(self.hub.tasks), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SwitchCount:
    """How many times greenlets were switched inside the `with` block."""

    def __init__(self) -> None:
        self.switches = 0

    def __enter__(self) -> SwitchCount:
        """Begin to count."""
        self._before = gettrace()
        settrace(self._count)
        return self

    def _count(self, event: str, args: object) -> None:
        self.switches += 1

    def __exit__(self, *_: object) -> None:
        """Stop."""
        settrace(self._before)


class CancellableDeferreds:
    """Deferreds that note their cancellation."""

    def __init__(self) -> None:
        self.cancelled: list[Deferred[Any]] = []

    def make(self) -> Deferred[Any]:
        """One of them."""
        return Deferred(self.cancelled.append)


def traceback_of(awaitable: Any) -> str:
    """The traceback of what waiting on it raises."""
    try:
        wait(awaitable)
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not fail")
