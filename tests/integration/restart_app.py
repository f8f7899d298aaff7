"""The application of the restart tests: short, waiting and streamed responses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the path; "/wait" waits first, "/stream" between two blocks.

    `X-Worker` is the process id.
    """
    path = environ["PATH_INFO"]
    if path == "/wait":
        environ["txgreenwsgi.sleep"](0.02)
    start_response(
        "200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))]
    )
    if path != "/stream":
        return [path.encode("latin-1")]
    return _stream(environ)


def _stream(environ: dict[str, Any]) -> Iterable[bytes]:
    yield b"/str"
    environ["txgreenwsgi.sleep"](0.02)
    yield b"eam"
