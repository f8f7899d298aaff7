"""A clock that accepts calls from threads, as a reactor does."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable


@implementer(IReactorFromThreads)
class ThreadClock(Clock):
    """A clock whose `advance` makes the calls that threads have queued."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def callFromThread(
        self,
        callable: Callable[..., Any],  # noqa: A002 - the interface's name
        *args: object,
        **kwargs: object,
    ) -> None:
        """Queue the call for the next turn."""
        self.asked.append((partial(callable, **kwargs), args))

    def advance(self, amount: float) -> None:
        """Make the queued calls, then advance the clock."""
        asked, self.asked = self.asked, []
        for function, args in asked:
            function(*args)
        super().advance(amount)


def in_thread(function: Callable[[], object], name: str = "a-worker") -> Any:
    """Return what `function` returns, or raise what it raises, in a new thread."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
