"""The default application: a page that demonstrates the server.

Plain WSGI on the standard library and the public API of txgreenwsgi, with one path
per demonstration. It may be publicly reachable, so every request parameter is bounded:
seconds, blocks, bytes, tasks and threads. It must never know how it is served.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from .answers import Refused, begin, send_json
from .deferreds import wait_for_deferred
from .flow import sleep_many, stream
from .messages import echo
from .page import PAGE, POLICY
from .uploads import follow, receive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    View = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]

__all__ = ["app"]

MAX_REQUESTS_SHOWN = 100


def _page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    begin(
        start_response,
        "text/html; charset=utf-8",
        HTTPStatus.OK,
        ("Content-Security-Policy", POLICY),
        ("Referrer-Policy", "no-referrer"),
    )
    return [PAGE]


def _requests(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """List the requests in flight, without addresses, queries or bodies."""
    in_flight = environ["txgreenwsgi.requests"]()
    shown = [
        {
            "method": record.method,
            "path": record.path[:200],
            "age": round(record.age, 2),
            "waiting_on": str(record.waiting_on or ""),
            "ours": record.request_id == environ["txgreenwsgi.request_id"],
        }
        for record in in_flight[:MAX_REQUESTS_SHOWN]
    ]
    return send_json(start_response, {"count": len(in_flight), "requests": shown})


_VIEWS: dict[str, tuple[str, View]] = {
    "/": ("GET", _page),
    "/sleep": ("GET", sleep_many),
    "/stream": ("GET", stream),
    "/upload": ("POST", receive),
    "/progress": ("GET", follow),
    "/deferred": ("GET", wait_for_deferred),
    "/echo": ("GET", echo),
    "/requests": ("GET", _requests),
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve the page and its requests. May park.

    `GET /` is the page, `/echo` a WebSocket. The other paths of `_VIEWS` respond in
    JSON, streams with one JSON value per line. Error responses are JSON as well.
    """
    path = environ.get("PATH_INFO", "")
    if not path:
        # Mounted below a prefix and requested without the slash, which the relative
        # URLs of the page need.
        location = environ.get("SCRIPT_NAME", "") + "/"
        return send_json(
            start_response,
            {"see": location},
            HTTPStatus.MOVED_PERMANENTLY,
            ("Location", location),
        )
    try:
        method, view = _VIEWS.get(path, ("", None))
        if view is None:
            raise Refused(HTTPStatus.NOT_FOUND, "this path does not exist")
        requested = environ["REQUEST_METHOD"]
        if requested != method and (requested, method) != ("HEAD", "GET"):
            refused = {"error": f"use {method}"}
            allow = ("Allow", "GET, HEAD" if method == "GET" else method)
            status = HTTPStatus.METHOD_NOT_ALLOWED
            return send_json(start_response, refused, status, allow)
        return view(environ, start_response)
    except Refused as refusal:
        return send_json(start_response, {"error": refusal.reason}, refusal.status)
