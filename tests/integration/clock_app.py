"""An application whose requests take time, and programs that embed it.

`python -m tests.integration.clock_app LOG` serves it with a `GreenSite` and, through
twisted.web, with a `GreenWSGIResource`, and prints the two ports.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import txgreenwsgi

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request body, after the wait that the path names."""
    body = environ["wsgi.input"].read()
    query = environ["QUERY_STRING"]
    path = environ["PATH_INFO"]
    if path == "/sleep":
        txgreenwsgi.sleep(float(query))
    elif path == "/steps":
        for _ in range(int(query)):
            txgreenwsgi.sleep(1)
    elif path == "/waits":
        body = repr(_waits(float(query))).encode()
    elif path == "/receive":
        # Bytes of the server at the port of the query, which come late.
        with socket.create_connection(("127.0.0.1", int(query)), 6) as connection:
            body = connection.recv(100)
    elif path == "/block":
        ctypes.CDLL(None).usleep(int(float(query) * 1_000_000))
    start_response(
        "200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    )
    return [body]


def _waits(seconds: float) -> list[str]:
    """Wait in each way that has a time limit; return the ways that ended early."""
    early = []
    lock = threading.Lock()
    lock.acquire()
    ours, theirs = socket.socketpair()
    ours.settimeout(seconds)

    def limited() -> None:
        with txgreenwsgi.timeout(seconds):
            txgreenwsgi.suspend().wait()

    ways: dict[str, Any] = {
        "time.sleep": lambda: time.sleep(seconds),
        "timeout": limited,
        "suspend": lambda: txgreenwsgi.suspend(seconds).wait(),
        "lock": lambda: lock.acquire(timeout=seconds),
        "event": lambda: threading.Event().wait(seconds),
        "socket": lambda: ours.recv(1),
        "poll": lambda: txgreenwsgi.wait_readable(ours, seconds),
    }

    def run(name: str) -> None:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            ways[name]()
        if time.monotonic() - began < seconds - 0.01:
            early.append(name)

    tasks = [txgreenwsgi.spawn(run, name) for name in ways]
    for task in tasks:
        task.wait()
    ours.close()
    theirs.close()
    return early


def main(log: str) -> None:
    """Serve the application as a part of another Twisted program."""
    from twisted.internet import reactor as installed
    from twisted.web.server import Site

    from txgreenwsgi import monkey

    monkey.patch_all()
    reactor: Any = installed
    sites = (
        txgreenwsgi.GreenSite(app, request_timeout=600),
        Site(txgreenwsgi.GreenWSGIResource(app, request_timeout=600), logPath=log),
    )
    for site in sites:
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
