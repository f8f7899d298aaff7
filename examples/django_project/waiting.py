"""How a view uses the database without stopping everybody else.

A query blocks its thread, and there is but one thread that serves requests. So
the query goes to a worker thread, and the view's task parks until it is done.
This file knows txgreenwsgi and Django's connections; it must never hear of a
model or a view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from django.db import close_old_connections
from twisted.internet.threads import deferToThread

from txgreenwsgi import wait

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that uses the database, in a worker thread. Parks.

    Django keeps one connection a thread, so a transaction must begin and end
    within one call: put the whole `atomic` block into the function. The
    function must also evaluate its queries: a QuerySet that is handed back
    would run them later, in the thread that serves.

    Returns:
        What the function returns.

    Raises:
        Exception: whatever the function raises, with its traceback.
    """

    def call() -> T:
        # Django tidies its connections when a request ends, but it does so in
        # the thread that serves, which has none.
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return wait(deferToThread(call))
