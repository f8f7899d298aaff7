"""State per request in a thread-local and in a context variable.

All requests run in one thread, so an unpatched `threading.local` is shared by all of
them. A context variable belongs to the request. (Flask, Werkzeug, Django's ORM state
in asgiref and most code written since Python 3.7 use those.) `/local` counts in the
former and `/context` in the latter: the count equals the number of steps unless
another request interferes. With `--patch all`, the default, a `threading.local`
belongs to the request too, and both counts are right.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a17_counters:app --patch none
    curl 'http://localhost:8080/local?5' & curl 'http://localhost:8080/local?3'
    curl 'http://localhost:8080/context?5' & curl 'http://localhost:8080/context?3'

It knows WSGI and one key of environ.
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
    """Count in the thread-local. Parks."""
    per_thread.count = 0
    for _ in range(steps):
        environ["txgreenwsgi.sleep"](PAUSE_SECONDS)
        per_thread.count += 1
    count: int = per_thread.count
    return count


def count_in_context(environ: WSGIEnvironment, steps: int) -> int:
    """Count in the context variable. Parks."""
    per_request.set(0)
    for _ in range(steps):
        environ["txgreenwsgi.sleep"](PAUSE_SECONDS)
        per_request.set(per_request.get() + 1)
    return per_request.get()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count the number of steps given by the query. Parks."""
    steps = min(int(environ["QUERY_STRING"] or 3), 100)
    count = count_in_thread if environ["PATH_INFO"] == "/local" else count_in_context
    counted = count(environ, steps)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{steps} steps, counted {counted}\n".encode()]
