"""Demonstration: an ordinary function waits for a Deferred.

It knows `wait` and the public interfaces of the reactor. A client must never choose
the name to look up or the amount of work.
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

MAX_THREADS = 4
TIMEOUT_SECONDS = 10.0


# Deferreds of this page that use the reactor's thread pool.
_in_threads: set[Deferred[str]] = set()


def _timer() -> Deferred[str]:
    from twisted.internet import reactor

    return deferLater(reactor, 0.8, lambda: "the timer fired")


def _digest() -> str:
    # hashlib releases the interpreter lock, so the reactor thread continues.
    return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 300_000).hex()[:16]


def _thread() -> Deferred[str]:
    return deferToThread(_digest)


def _name() -> Deferred[str]:
    from twisted.internet import reactor

    # Every host resolves this name without a name server.
    return reactor.resolve("localhost")


DEFERREDS = {"timer": _timer, "thread": _thread, "name": _name}


def wait_for_deferred(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Wait for the Deferred that `?what=` names, and respond with its result. Parks.

    Raises:
        Refused: 400 for a name that is not in `DEFERREDS`, 503 while too many
            threads are in use.
    """
    what = query_value(environ, "what")
    if what not in DEFERREDS:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"what: give one of {', '.join(DEFERREDS)}"
        )
    if what != "timer" and len(_in_threads) >= MAX_THREADS:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "all threads of this page are busy: try again later",
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
