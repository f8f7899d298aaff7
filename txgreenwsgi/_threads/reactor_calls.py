"""Reactor calls in request threads, which are refused.

Twisted's reactor may be called only in its own thread. A view that makes Deferreds by
itself, `wait(agent.request(...))`, does so without knowing it when it runs in a thread:
timers are lost and data structures corrupted, without an error. So once a reactor has
request threads, its methods raise in them.

It knows the reactor. It must never know requests.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from txgreenwsgi._switching.thread_calls import in_task_of_thread, tasks_of_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

__all__ = ["ReactorCallInThread", "refuse_in_threads"]

#: The methods that application code reaches, directly or through Twisted's clients.
_METHODS: Final = (
    "addReader",
    "addWriter",
    "callLater",
    "connectSSL",
    "connectTCP",
    "connectUDP",
    "connectUNIX",
    "listenSSL",
    "listenTCP",
    "listenUDP",
    "listenUNIX",
    "removeReader",
    "removeWriter",
    "spawnProcess",
)


class ReactorCallInThread(RuntimeError):
    """A request in a thread has called the reactor directly."""


def refuse_in_threads(reactor: IReactorTime) -> None:
    """Make the methods of `reactor` raise in request threads. A no-op at each repeat.

    Other threads are not checked: Twisted documents `callFromThread` for them.
    """
    for name in _METHODS:
        method = getattr(reactor, name, None)
        if method is not None and not hasattr(method, "refuses_threads"):
            setattr(reactor, name, _refusing(name, method))


def _refusing(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(*args: object, **kwargs: object) -> Any:
        if tasks_of_threads and in_task_of_thread() is not None:
            raise ReactorCallInThread(
                f"reactor.{name}() was called in a request's thread: give "
                "txgreenwsgi.wait() a function that makes the Deferred, as in "
                "wait(in_greenlet(function)(...)) or spawn(function).wait(), or serve "
                "this path in a task (remove it from --threads-for)"
            )
        return method(*args, **kwargs)

    marked: Any = guarded
    marked.refuses_threads = True
    return guarded
