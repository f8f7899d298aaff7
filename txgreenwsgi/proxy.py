"""`GreenProxy`: a blocking interface for APIs that return Deferreds.

This module knows how to wait. It must never know the API behind the proxy.
"""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import Deferred

from ._switching.greenlets import Task, require_task
from ._switching.thread_calls import in_task_of_thread, tasks_of_threads
from ._switching.waiting import wait

__all__ = ["GreenProxy"]


class GreenProxy:
    """A proxy whose calls wait for the Deferreds of the wrapped object.

    If a call of the object, or of one of its methods, returns a Deferred (or a
    coroutine, a Task, any awaitable), the proxy waits for it and returns the result
    or raises the error; other results are returned unchanged. Other attributes are
    read from and written to the object. So a WSGI application can use Twisted clients
    as if they were blocking:

        pool = GreenProxy(adbapi.ConnectionPool("sqlite3", "app.db"))
        rows = pool.runQuery("SELECT name FROM people")

    The results of calls are not wrapped: if their methods also return Deferreds, wrap
    them as in `GreenProxy(GreenProxy(treq).get(url)).json()`.

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
        """Call the object and wait for the result. May park.

        Raises:
            NotInGreenlet: the caller is not in a task; the object was not called.
            TypeError: the object is not callable.
        """
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            return in_task(self.__call__, *args, **kwargs)
        # Check first, so that no operation starts without a waiter.
        require_task("a GreenProxy")
        result = self.__wrapped__(*args, **kwargs)
        if isinstance(result, Task):
            return result.wait(self._timeout)
        if isinstance(result, Deferred) or inspect.isawaitable(result):
            return wait(result, self._timeout)
        return result

    def __getattr__(self, name: str) -> Any:
        """Return the object's attribute, as a GreenProxy if it is a method."""
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
        """Return the names of the object's attributes."""
        return dir(self.__wrapped__)
