"""The proxy of `a05_fdevent_proxy.py` on a server without fdevent.

An application finds the extensions in environ, so it runs on any server with an
adapter that puts them there. This one waits by `select`, which blocks the process.
The responses are identical.

Run it from the root of a checkout, in front of another server::

    python -m http.server 8000 &
    UPSTREAM=127.0.0.1:8000 python -m examples.origins.a06_fdevent_on_wsgiref 8081
    curl http://localhost:8081/

It knows WSGI and the standard library. It must never need txgreenwsgi.
"""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import make_server

from .a05_fdevent_proxy import app as proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Timeout:
    """The value of `x-wsgiorg.fdevent.timeout`: an object whose truth changes."""

    def __init__(self) -> None:
        self.value = False

    def __bool__(self) -> bool:
        return self.value


def with_fdevent(application: WSGIApplication) -> WSGIApplication:
    """Return the application with fdevent in its environ, for any server."""

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes]:
        requested: list[tuple[list[Any], list[Any], list[Any], float | None]] = []
        timeout = Timeout()

        def readable(fd: Any, seconds: float | None = None) -> bytes:
            requested.append(([fd], [], [fd], seconds))
            return b""

        def writable(fd: Any, seconds: float | None = None) -> bytes:
            requested.append(([], [fd], [fd], seconds))
            return b""

        environ["x-wsgiorg.fdevent.readable"] = readable
        environ["x-wsgiorg.fdevent.writable"] = writable
        environ["x-wsgiorg.fdevent.timeout"] = timeout
        for block in application(environ, start_response):
            if block or not requested:
                yield block
            else:
                timeout.value = not any(select.select(*requested.pop()))

    return adapted


def main(port: int) -> None:
    """Serve on a port of the loopback interface, until interrupted."""
    with make_server("127.0.0.1", port, with_fdevent(proxy)) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
