"""An application for clients of HTTP/2."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGE = 5_000_000

#: One item for each request of /sleep.
_sleepers: list[None] = []


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with facts about the request.

    /large is large, /sleep takes a second, and /sleepers counts its requests.
    """
    path = environ["PATH_INFO"]
    if path == "/sleep":
        _sleepers.append(None)
        time.sleep(1)
    if path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    size = 0
    while data := environ["wsgi.input"].read(65536):
        size += len(data)
    start_response("200 OK", [("Content-Type", "application/json")])
    if path == "/sleepers":
        return [b"%d" % len(_sleepers)]
    if path == "/large":
        return (b"x" * 50_000 for _ in range(LARGE // 50_000))
    names = ("SERVER_PROTOCOL", "wsgi.url_scheme", "HTTP_HOST", "HTTP_COOKIE")
    found = {name: environ.get(name) for name in names}
    return [json.dumps(found | {"size": size}).encode()]
