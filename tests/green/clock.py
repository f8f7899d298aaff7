"""Run functions in tasks on a `task.Clock`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import task as twisted_task

from txgreenwsgi._switching.greenlets import Task, hub_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TaskClock"]


class TaskClock(twisted_task.Clock):
    """A clock with a hub that runs tasks."""

    def spawn(self, function: Callable[..., Any], *args: Any) -> Task[Any]:
        """Run `function(*args)` in a task up to its first wait."""
        task: Task[Any] = Task(hub_of(self), function, args)
        hub_of(self).spawn(task)
        self.settle()
        return task

    def settle(self) -> None:
        """Run all tasks that are ready."""
        for _ in range(20):
            self.advance(0)

    def result(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in a task to its end and return the result."""
        return result_of(self.spawn(function, *args))


def result_of(task: Task[Any]) -> Any:
    """Return the result of a task that has ended, or raise its exception."""
    found: list[Any] = []
    task.deferred().addBoth(found.append)
    if not found:
        raise AssertionError(f"{task!r} has not ended")
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]
