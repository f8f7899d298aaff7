"""The application of the HTTP/2 benchmark: plain WSGI, for every server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["LARGE_BYTES", "app"]

#: Size of a download and of an upload.
LARGE_BYTES = 256 * 1024 * 1024

_HELLO = b"Hello, world!\n"
_BLOCK = b"x" * 65536


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """Answer /, /sleep, /down and /up."""
    path = environ["PATH_INFO"]
    body: Iterable[bytes] = [_HELLO]
    length = len(_HELLO)
    if path == "/sleep":
        time.sleep(1)
    elif path == "/down":
        length = LARGE_BYTES
        body = (_BLOCK for _ in range(LARGE_BYTES // len(_BLOCK)))
    elif path == "/up":
        size = 0
        while data := environ["wsgi.input"].read(65536):
            size += len(data)
        answer = b"%d\n" % size
        body, length = [answer], len(answer)
    start(
        "200 OK",
        [("Content-Type", "text/plain"), ("Content-Length", str(length))],
    )
    return body
