"""The environ of one request (PEP 3333, "environ Variables").

The part that all requests share comes from `txgreenwsgi._wsgi.environ`. This file
must never know what the environ is used for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._wsgi.environ import is_below

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized

    from _typeshed.wsgi import WSGIEnvironment

    from txgreenwsgi._http.head import RequestHead

    from .stream import Ends

__all__ = ["environ_of", "path_info"]

#: The variables that the record of a request contains.
_RECORDED = ("HTTP_REFERER", "HTTP_USER_AGENT", "HTTP_TRACEPARENT")


def path_info(shared: Mapping[str, object], head: RequestHead) -> str:
    """Return the PATH_INFO of a request: its path below the server's SCRIPT_NAME.

    The path is unchanged if it is not below that.

    Args:
        shared: the part of the environ that all requests share.
        head: the request head.
    """
    path = head.path
    if path == "*":
        # RFC 9112 section 3.2.4: the asterisk means the server, not a path.
        return ""
    prefix = str(shared.get("SCRIPT_NAME", ""))
    if is_below(prefix, path):
        return path[len(prefix) :]
    return path


def environ_of(
    shared: WSGIEnvironment, head: RequestHead, ends: Ends, observers: Sized
) -> WSGIEnvironment:
    """Return a new environ for a request.

    Clears the variables of the head: a request may sleep for hours, and must not
    hold them twice.

    Args:
        shared: the part that all requests share; it is copied.
        head: the request head.
        ends: both ends of the connection.
        observers: if there are any, the head keeps the variables for the record.
    """
    variables = head.variables
    environ = shared | variables
    head.variables = {}
    if observers:
        for name in _RECORDED:
            if name in variables:
                head.variables[name] = variables[name]
    environ["REQUEST_METHOD"] = head.method
    path = head.path
    if path == "*" or shared.get("SCRIPT_NAME"):
        path = path_info(shared, head)
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = head.query
    environ["SERVER_PROTOCOL"] = head.version
    environ["RAW_URI"] = environ["REQUEST_URI"] = head.target.decode("latin-1")
    (
        environ["SERVER_NAME"],
        environ["SERVER_PORT"],
        environ["REMOTE_ADDR"],
        environ["REMOTE_PORT"],
        environ["wsgi.url_scheme"],
        more,
    ) = ends
    if more is not None:
        environ.update(more)
    return environ
