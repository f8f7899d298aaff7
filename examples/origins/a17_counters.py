"""Counting per request, while requests are interleaved: where a thread-local fails.

All requests run in one thread, so what belongs to a thread belongs to all of them:
a bare `threading.local` mixes them up. A context variable belongs to the request.
(Flask, Werkzeug, Django's ORM state in asgiref and most of what was written since
Python 3.7 use those.) `/local` counts the wrong way and `/context` the right way:
each answers with its own number of steps, if nobody has meddled.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a17_counters:app
    curl 'http://localhost:8080/local?5' & curl 'http://localhost:8080/local?3'
    curl 'http://localhost:8080/context?5' & curl 'http://localhost:8080/context?3'

The file knows WSGI and one key of environ.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PAUSE_SECONDS = 0.05

per_thread = threading.local()
per_request: ContextVar[int] = ContextVar("per_request")


def count_in_thread(environ: WSGIEnvironment, steps: int) -> int:
    """Count in what belongs to the thread. Parks."""
    per_thread.count = 0
    for _ in range(steps):
        environ["txgreenwsgi.sleep"](PAUSE_SECONDS)
        per_thread.count += 1
    count: int = per_thread.count
    return count


def count_in_context(environ: WSGIEnvironment, steps: int) -> int:
    """Count in what belongs to the request. Parks."""
    per_request.set(0)
    for _ in range(steps):
        environ["txgreenwsgi.sleep"](PAUSE_SECONDS)
        per_request.set(per_request.get() + 1)
    return per_request.get()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count as many steps as the query says, and tell the result. Parks."""
    steps = min(int(environ["QUERY_STRING"] or 3), 100)
    count = count_in_thread if environ["PATH_INFO"] == "/local" else count_in_context
    counted = count(environ, steps)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{steps} steps, counted {counted}\n".encode()]
