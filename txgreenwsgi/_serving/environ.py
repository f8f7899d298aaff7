"""The environ of one request (PEP 3333, "environ Variables").

The part that is the same for all requests comes from `txgreenwsgi._wsgi.environ`.
This file must never know what the environ is used for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txgreenwsgi._http.head import RequestHead

    from .stream import Ends

__all__ = ["environ_of", "take_variables"]

#: The variables of a request that its record contains.
_RECORDED = ("HTTP_REFERER", "HTTP_USER_AGENT")


def environ_of(
    shared: dict[str, Any], variables: dict[str, str], head: RequestHead, ends: Ends
) -> dict[str, Any]:
    """Return a new environ for a request.

    Args:
        shared: the part that all requests share; it is copied.
        variables: the header fields, from `take_variables`.
        head: of the request.
        ends: of its connection.
    """
    environ = shared | variables
    environ["REQUEST_METHOD"] = head.method
    # RFC 9112 section 3.2.4: the asterisk names the server, not a path.
    environ["PATH_INFO"] = head.path if head.path != "*" else ""
    environ["QUERY_STRING"] = head.query
    environ["SERVER_PROTOCOL"] = head.version
    environ["RAW_URI"] = environ["REQUEST_URI"] = head.target.decode("latin-1")
    (
        environ["SERVER_NAME"],
        environ["SERVER_PORT"],
        environ["REMOTE_ADDR"],
        environ["REMOTE_PORT"],
        environ["wsgi.url_scheme"],
    ) = ends
    return environ


def take_variables(head: RequestHead, recorded: bool) -> dict[str, str]:
    """Return the variables of a head, which gives them up.

    A request may sleep for hours, and need not hold them twice.

    Args:
        head: of the request.
        recorded: whether to leave the variables that a record contains.
    """
    variables = head.variables
    if recorded:
        head.variables = {
            name: variables[name] for name in _RECORDED if name in variables
        }
    else:
        head.variables = {}
    return variables
