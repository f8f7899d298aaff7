"""Hello, world in plain WSGI, without extensions of any server.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.hello:app
    curl http://localhost:8080/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Respond to every request with one line of text. Never parks."""
    body = b"Hello, world!\n"
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ],
    )
    return [body]
