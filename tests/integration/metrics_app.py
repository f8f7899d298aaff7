"""The application of the metrics tests: it has a registry of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: The application's own registry.
REGISTRY = CollectorRegistry()

_orders = Counter("shop_orders", "Orders.", ["method"], registry=REGISTRY)
_seconds = Histogram("shop_seconds", "Durations.", registry=REGISTRY)
_pid = Gauge("shop_pid", "Process id.", registry=REGISTRY)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the process id, in the way that the path names.

    "/missing" is not found, "/fail" raises, "/sleep" waits, "/stream" sends two blocks,
    "/kill" ends the process without a response, "/registry" counts nothing.
    """
    path = environ["PATH_INFO"]
    if path == "/kill":
        os.kill(os.getpid(), 9)
    if path == "/fail":
        raise LookupError("raised on purpose")
    if path == "/sleep":
        environ["txgreenwsgi.sleep"](0.02)
    body = environ["wsgi.input"].read()
    _orders.labels(environ["REQUEST_METHOD"]).inc()
    _pid.set(os.getpid())
    with _seconds.time():
        text = b"%d %d" % (os.getpid(), len(body))
    status = "404 Not Found" if path == "/missing" else "200 OK"
    start_response(status, [("Content-Type", "text/plain")])
    return _streamed(environ, text) if path == "/stream" else [text]


def _streamed(environ: dict[str, Any], text: bytes) -> Iterator[bytes]:
    yield text
    environ["txgreenwsgi.sleep"](0.01)
    yield text
