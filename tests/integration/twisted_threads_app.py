"""An application that uses Twisted directly, and does not know where it runs.

Its paths begin with /t/ for threads and /g/ for tasks.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from twisted.enterprise import adbapi
from twisted.internet import defer, reactor, task, threads, utils
from twisted.web.client import Agent, readBody

from txgreenwsgi import current_task, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["app"]

_reactor: Any = reactor
_agent = Agent(_reactor)
_lock = defer.DeferredLock()
_pool = adbapi.ConnectionPool("sqlite3", ":memory:", check_same_thread=False, cp_max=1)


def kind(port: str) -> object:
    """Return where the view runs."""
    return "thread" if current_task() is None else "task"


def agent(port: str) -> object:
    """Request a path of this server."""
    url = f"http://127.0.0.1:{port}/g/kind".encode()
    return wait(readBody(wait(_agent.request(b"GET", url))))


def process(port: str) -> object:
    """Run a process."""
    return wait(utils.getProcessOutput(sys.executable, ["-c", "print(42)"])).strip()


def pool(port: str) -> object:
    """Use the reactor's thread pool."""
    return wait(threads.deferToThread(int, "7"))


def inline(port: str) -> object:
    """Use inlineCallbacks."""

    @defer.inlineCallbacks
    def steps() -> Any:
        yield task.deferLater(_reactor, 0.001, int)
        yield task.deferLater(_reactor, 0.001, int)
        return 9

    return wait(steps())


def loop(port: str) -> object:
    """Run a LoopingCall."""
    calls: list[None] = []

    def tick() -> None:
        calls.append(None)
        if len(calls) == 3:
            looping.stop()

    looping = task.LoopingCall(tick)
    wait(looping.start(0.001))
    return len(calls)


def limit(port: str) -> object:
    """Give a Deferred a timeout."""
    never: defer.Deferred[None] = defer.Deferred()
    never.addTimeout(0.01, _reactor)
    try:
        return wait(never)
    except defer.TimeoutError:
        return "timed out"


def lock(port: str) -> object:
    """Wait for a DeferredLock, and hold it."""
    wait(_lock.acquire())
    time.sleep(0.001)
    _lock.release()
    return "locked"


def query(port: str) -> object:
    """Query a database with adbapi."""
    return wait(_pool.runQuery("SELECT 1"))


_VIEWS: dict[str, Callable[[str], object]] = {
    view.__name__: view
    for view in (kind, agent, process, pool, inline, loop, limit, lock, query)
}


def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Call the view that the path names."""
    view = _VIEWS[environ["PATH_INFO"].split("/")[2]]
    text = f"{view(environ['SERVER_PORT'])}\n"
    start("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
