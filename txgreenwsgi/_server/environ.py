"""The environ of one exchange (PEP 3333, "environ Variables").

What is the same for all requests comes from `txgreenwsgi._wsgi.environ`. This file
must never know what is done with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi._wsgi.errors import Errors
from txgreenwsgi._wsgi.input import Input

if TYPE_CHECKING:
    from txgreenwsgi._wsgi.input import BodySource

    from .exchange import Exchange

__all__ = ["environ_of"]

#: The variables of a request that its record tells.
_LOGGED = ("HTTP_REFERER", "HTTP_USER_AGENT")


def environ_of(exchange: Exchange, body: BodySource) -> dict[str, Any]:
    """What the application is called with. The head gives up its variables.

    Args:
        exchange: the request's; it gets its `errors`.
        body: what `wsgi.input` reads from.
    """
    head = exchange.head
    site = exchange.site
    variables = head.variables
    environ = site.environ | variables
    # A request may sleep for hours: it need not keep them twice.
    head.variables = {}
    if site.observers:
        for name in _LOGGED:
            if name in variables:
                head.variables[name] = variables[name]
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
    ) = exchange.channel.names()
    request_id = exchange.request_id
    environ["wsgi.input"] = Input(body)
    environ["wsgi.errors"] = exchange.errors = Errors(request_id)
    environ["txgreenwsgi.request_id"] = request_id
    environ["txgreenwsgi.client_disconnected"] = environ[
        "waitress.client_disconnected"
    ] = exchange.client_disconnected
    environ["txgreenwsgi.set_request_timeout"] = exchange.set_request_timeout
    if site.settings.environ:
        # The deployer knows better than the client and the connection.
        environ.update(site.settings.environ)
    return environ
