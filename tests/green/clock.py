"""Run functions in tasks on a `task.Clock`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import task as twisted_task

from txgreenwsgi._switching.greenlets import Task, hub_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TaskClock"]


class TaskClock(twisted_task.Clock):
    """A clock whose hub runs tasks."""

    def spawn(self, function: Callable[..., Any], *args: Any) -> Task[Any]:
        """Run `function(*args)` in a task, until it first waits."""
        task: Task[Any] = Task(hub_of(self), function, args)
        hub_of(self).spawn(task)
        self.settle()
        return task

    def settle(self) -> None:
        """Let everything run that is ready."""
        for _ in range(20):
            self.advance(0)

    def result(self, function: Callable[..., Any], *args: Any) -> Any:
        """What `function(*args)` returns, run in a task to its end."""
        return result_of(self.spawn(function, *args))


def result_of(task: Task[Any]) -> Any:
    """The result of a task that has ended."""
    found: list[Any] = []
    task.deferred().addBoth(found.append)
    if not found:
        raise AssertionError(f"{task!r} has not ended")
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]
