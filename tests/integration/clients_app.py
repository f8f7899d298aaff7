"""An application whose views use the clients of `slow_clients.py`.

    /once/CLIENT/NUMBER     ask a slow question
    /size/CLIENT/NUMBER     create the client's pool with that many connections
    /begin/WAY/CLIENT       ask a slow question and interrupt it
    /after/WAY/CLIENT       use the same client object again, and close it
    /busy/CLIENT            count the connections of the client's pool that are in use
    /count                  count what the process holds

A header has the ports of the servers. Not a test module: `twistd` serves it.
"""

from __future__ import annotations

import gc
import json
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import txgreenwsgi
from txgreenwsgi._parking.descriptors import registrations_of
from txgreenwsgi._switching.greenlets import hub_of

from .slow_clients import CLIENTS, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SLOW_SECONDS = 2.0
#: Slow questions are interrupted after this time, before any of them is answered.
SOON_SECONDS = 0.6

_pools: dict[str, Client] = {}
_kept: dict[tuple[str, str], Client] = {}
_errors: dict[tuple[str, str], str] = {}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with JSON, or with status 500 and a traceback."""
    what, *words = unquote(environ["PATH_INFO"]).strip("/").split("/")
    ports = json.loads(environ.get("HTTP_X_PORTS", "{}"))
    answer = _VIEWS[what](ports, *words)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def _once(ports: dict[str, Any], name: str, number: str) -> str:
    """Send a query through a shared pool, or through a client per request."""
    kind = CLIENTS[name]
    if kind.is_pool:
        if name not in _pools:
            _pools[name] = kind(ports)
        return _pools[name].ask(int(number), SLOW_SECONDS)
    client = kind(ports)
    try:
        return client.ask(int(number), SLOW_SECONDS)
    finally:
        client.close()


def _size(ports: dict[str, Any], name: str, connections: str) -> bool:
    """Create a shared pool of a given size; return whether the client has one."""
    kind = CLIENTS[name]
    if kind.is_pool:
        _end(ports, name)
        sized = type(kind.__name__, (kind,), {"pool_size": int(connections)})
        _pools[name] = sized(ports)
    return kind.is_pool


def _end(ports: dict[str, Any], name: str) -> None:
    if name in _pools:
        _pools.pop(name).close()


def _busy(ports: dict[str, Any], name: str) -> int:
    return _pools[name].busy() if name in _pools else 0


def _begin(ports: dict[str, Any], way: str, name: str) -> str:
    """Interrupt the client's second question; return the name of the exception."""
    limited = {"limit": SOON_SECONDS} if way == "its own limit" else {}
    client = _kept[way, name] = CLIENTS[name](ports, **limited)
    _errors.pop((way, name), None)
    _require(client.ask(1, 0), 1)
    try:
        if way == "timeout":
            with txgreenwsgi.timeout(SOON_SECONDS):
                answer = client.ask(2, SLOW_SECONDS)
        elif way == "cancel":
            task = txgreenwsgi.spawn(client.ask, 2, SLOW_SECONDS)
            txgreenwsgi.sleep(SOON_SECONDS)
            task.cancel()
            answer = task.wait()
        else:
            answer = client.ask(2, SLOW_SECONDS)
    except Exception as error:
        _errors[way, name] = repr(error)
        if way == "disconnect":
            raise
        return _errors[way, name]
    if not client.asks_again:
        raise AssertionError(f"{name}: {way} interrupted nothing")
    _require(answer, 2)
    _errors[way, name] = "none: it asked again"
    return _errors[way, name]


def _after(ports: dict[str, Any], way: str, name: str) -> list[str]:
    """Use the same client before and after the late answer; return the results."""
    until = time.monotonic() + 20
    while (way, name) not in _errors:
        if time.monotonic() > until:
            raise AssertionError(f"{name}: {way} interrupted nothing")
        time.sleep(0.02)
    errors = []
    client = _kept.pop((way, name))

    def ask(number: int) -> None:
        nonlocal client
        try:
            answer = client.ask(number, 0)
        except Exception as error:
            errors.append(repr(error))
            client.close()
            client = CLIENTS[name](ports)
            answer = client.ask(number, 0)
        _require(answer, number)

    ask(3)
    ask(4)
    time.sleep(SLOW_SECONDS)
    ask(5)
    ask(6)
    client.close()
    return errors


def _require(answer: str, number: int) -> None:
    if answer != str(number):
        raise AssertionError(f"asked for {number} and received {answer}")


def _count(ports: dict[str, Any]) -> dict[str, int]:
    """Count tasks, readers, sockets and so on: none of the numbers may grow."""
    gc.collect()
    hub = hub_of()
    reactor: Any = hub.reactor
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "readers": len(reactor.getReaders()),
        "writers": len(reactor.getWriters()),
        "tasks": len(hub.tasks),
        "delayed calls": len(reactor.getDelayedCalls()),
        "waits on sockets": sum(
            len(registration.readers) + len(registration.writers)
            for registration in registrations_of(hub).values()
        ),
    }


_VIEWS: dict[str, Callable[..., Any]] = {
    "once": _once,
    "size": _size,
    "end": _end,
    "busy": _busy,
    "begin": _begin,
    "after": _after,
    "count": _count,
}
