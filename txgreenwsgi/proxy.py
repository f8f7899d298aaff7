"""An API that returns Deferreds, for code that wants results.

It knows how to wait. It must never know whose API it is.
"""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import Deferred

from ._switching.greenlets import Task, require_task
from ._switching.waiting import wait

__all__ = ["GreenProxy"]


class GreenProxy:
    """An object whose calls wait for what they would otherwise return.

    Each call of it, or of one of its methods, that returns a Deferred (or a
    coroutine, a Task, anything awaitable) waits for it, and returns or raises the
    result; other results are returned as they are. Its other attributes are the
    object's own, for reading and writing. So clients that were written for
    Twisted are called from a WSGI application as if they blocked:

        pool = GreenProxy(adbapi.ConnectionPool("sqlite3", "app.db"))
        rows = pool.runQuery("SELECT name FROM people")

    An object that a call returns is not wrapped: wrap it, if its methods return
    Deferreds too, as `GreenProxy(GreenProxy(treq).get(url)).json()` does.

    Args:
        wrapped: the object, a module or a function.
        timeout: seconds for each call, after which it is cancelled and `TimedOut`
            is raised; None for no limit.
    """

    __slots__ = ("__wrapped__", "_timeout")

    def __init__(self, wrapped: Any, timeout: float | None = None) -> None:
        object.__setattr__(self, "__wrapped__", wrapped)
        object.__setattr__(self, "_timeout", timeout)

    def __repr__(self) -> str:
        return f"GreenProxy({self.__wrapped__!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and wait for the result. May park.

        Raises:
            NotInGreenlet: there is no task here; nothing was called.
            TypeError: the object cannot be called.
        """
        # First of all: an operation that nobody can wait for is not begun.
        require_task("a GreenProxy")
        result: Any = self.__wrapped__(*args, **kwargs)
        if isinstance(result, Task):
            return result.wait(self._timeout)
        if isinstance(result, Deferred) or inspect.isawaitable(result):
            return wait(result, self._timeout)
        return result

    def __getattr__(self, name: str) -> Any:
        """The object's attribute; a method that waits if it can be called."""
        attribute = getattr(self.__wrapped__, name)
        if callable(attribute) and not isinstance(attribute, type):
            return GreenProxy(attribute, self._timeout)
        return attribute

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the object's attribute."""
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete the object's attribute."""
        delattr(self.__wrapped__, name)

    def __dir__(self) -> list[str]:
        """The object's names."""
        return dir(self.__wrapped__)
