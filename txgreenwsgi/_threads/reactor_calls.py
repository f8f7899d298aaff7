"""Reactor calls in request threads, which are made in the reactor's thread.

Twisted's reactor may be called only in its own thread. A view that makes Deferreds by
itself, `wait(agent.request(...))`, does so without knowing it when it runs in a thread:
timers would be lost and data structures corrupted, without an error. So once a reactor
has request threads, they make its methods be called in their tasks; and from the first
such call to the thread's next wait the reactor does not run, so that no Deferred fires
while the thread adds callbacks.

It knows the reactor. It must never know requests.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from txgreenwsgi._switching.thread_calls import in_task_of_thread, tasks_of_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

__all__ = ["guard_from_threads"]

#: The methods that application code reaches, directly or through Twisted's clients.
_METHODS: Final = (
    "addReader",
    "addSystemEventTrigger",
    "addWriter",
    "callLater",
    "callWhenRunning",
    "connectSSL",
    "connectTCP",
    "connectUDP",
    "connectUNIX",
    "getThreadPool",
    "listenSSL",
    "listenTCP",
    "listenUDP",
    "listenUNIX",
    "removeReader",
    "removeWriter",
    "spawnProcess",
    "stop",
)


def guard_from_threads(reactor: IReactorTime) -> None:
    """Have the calls of request threads made in the reactor's thread.

    A no-op at each repeat. Other threads are not checked: Twisted documents
    `callFromThread` for them.
    """
    for name in _METHODS:
        method = getattr(reactor, name, None)
        if method is not None and not hasattr(method, "guarded_from_threads"):
            setattr(reactor, name, _guarded(method))


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(*args: object, **kwargs: object) -> Any:
        if tasks_of_threads and (in_task := in_task_of_thread()) is not None:
            return in_task.and_hold(method, *args, **kwargs)
        return method(*args, **kwargs)

    marked: Any = guarded
    marked.guarded_from_threads = True
    return guarded
