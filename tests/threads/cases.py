"""A reactor in memory whose tasks run calls in real threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from tests.serving.thread_runner import ThreadsReactor
from txgreenwsgi._switching.greenlets import Task, hub_of
from txgreenwsgi._threads.pool import pool_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ThreadsTestCase"]

T = TypeVar("T")


class ThreadsTestCase(SynchronousTestCase):
    """Tests with tasks and real threads."""

    def setUp(self) -> None:
        """Make a reactor and its pool."""
        self.reactor = ThreadsReactor()
        self.hub = hub_of(self.reactor)
        self.pool = pool_of(self.hub)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, as code that blocks does. May be called in a task."""
        self.reactor.rightNow += seconds

    def begin(self, function: Callable[[], T]) -> Task[T]:
        """Start `function` in a task."""
        task: Task[T] = Task(self.hub, function)
        self.hub.start(task)
        return task

    def finish(self, *tasks: Task[Any]) -> None:
        """Run the reactor until tasks have ended."""
        self.reactor.run_until(lambda: all(task.done for task in tasks))

    def run_in_task(self, function: Callable[[], T]) -> T:
        """Run `function` in a task, and return its result or raise its error."""
        task = self.begin(function)
        self.finish(task)
        error = task.error
        if error is not None:
            task.log_unhandled()
            self.flushLoggedErrors()
            raise error
        results: list[T] = []
        self.begin(lambda: results.append(task.wait()))
        return results[0]
