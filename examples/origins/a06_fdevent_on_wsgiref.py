"""The proxy of `a05_fdevent_proxy.py` on a server that knows nothing of fdevent.

An application finds the extensions in environ, so it runs wherever a few lines put
them there. This adapter does so for any server: it waits by `select`, and so does
the whole process meanwhile. What the clients get is the same, to the byte.

Run it from the root of a checkout, in front of another server::

    python -m http.server 8000 &
    UPSTREAM=127.0.0.1:8000 python -m examples.origins.a06_fdevent_on_wsgiref 8081
    curl http://localhost:8081/

The file knows WSGI and the standard library; it must never need txgreenwsgi.
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
    """What `x-wsgiorg.fdevent.timeout` is: an object whose truth changes."""

    def __init__(self) -> None:
        self.value = False

    def __bool__(self) -> bool:
        return self.value


def with_fdevent(application: WSGIApplication) -> WSGIApplication:
    """Give an application that has fdevent in its environ, on any server."""

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes]:
        asked: list[tuple[list[Any], list[Any], list[Any], float | None]] = []
        timeout = Timeout()

        def readable(fd: Any, seconds: float | None = None) -> bytes:
            asked.append(([fd], [], [fd], seconds))
            return b""

        def writable(fd: Any, seconds: float | None = None) -> bytes:
            asked.append(([], [fd], [fd], seconds))
            return b""

        environ["x-wsgiorg.fdevent.readable"] = readable
        environ["x-wsgiorg.fdevent.writable"] = writable
        environ["x-wsgiorg.fdevent.timeout"] = timeout
        for block in application(environ, start_response):
            if block or not asked:
                yield block
            else:
                timeout.value = not any(select.select(*asked.pop()))

    return adapted


def main(port: int) -> None:
    """Serve on a port of the loopback interface, until interrupted."""
    with make_server("127.0.0.1", port, with_fdevent(proxy)) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
