"""Three Deferreds of Twisted's that an ordinary function waits for.

It knows `wait` and the reactor's public interfaces; it must never take from a
visitor what to look up or how hard to work.
"""

from __future__ import annotations

import hashlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from txgreenwsgi import wait

from .answers import Refused, query_value, send_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from twisted.internet.defer import Deferred

MOST_IN_THREADS = 4
TIMEOUT_SECONDS = 10.0


# What this process has in its thread pool for the page.
_in_threads: set[Deferred[str]] = set()


def _timer() -> Deferred[str]:
    from twisted.internet import reactor

    return deferLater(reactor, 0.8, lambda: "the clock rang")


def _digest() -> str:
    # hashlib lets go of the interpreter lock, so the serving thread runs on.
    return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 300_000).hex()[:16]


def _thread() -> Deferred[str]:
    return deferToThread(_digest)


def _name() -> Deferred[str]:
    from twisted.internet import reactor

    # A fixed name, which every machine can look up without asking another.
    return reactor.resolve("localhost")


DEFERREDS = {"timer": _timer, "thread": _thread, "name": _name}


def wait_for_deferred(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Wait for the Deferred that `?what=` names, and answer with its result. Parks.

    Raises:
        Refused: 400 for a name that is not in `DEFERREDS`, 503 while too many
            are being waited for.
    """
    what = query_value(environ, "what")
    if what not in DEFERREDS:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"what: give one of {', '.join(DEFERREDS)}"
        )
    if what != "timer" and len(_in_threads) >= MOST_IN_THREADS:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "all threads of this page are busy: try again in a moment",
        )
    started = time.monotonic()
    deferred = DEFERREDS[what]()
    if what != "timer":
        _in_threads.add(deferred)
    try:
        result = wait(deferred, timeout=TIMEOUT_SECONDS)
    finally:
        _in_threads.discard(deferred)
    seconds = round(time.monotonic() - started, 3)
    return send_json(start_response, {"result": result, "seconds": seconds})
