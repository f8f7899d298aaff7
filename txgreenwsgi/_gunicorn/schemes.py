"""`wsgi.url_scheme` behind a proxy, as gunicorn sets it.

gunicorn's `forwarded_allow_ips` and `secure_scheme_headers` decide about the scheme
only: no field is removed, and the address of the client is that of the connection. So
the proxy support of applications and frameworks, which is set up for gunicorn, stays
right. `txgreenwsgi.settings` has `trusted_proxy`, which does more.

It knows the environ. It must never know transports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._serving.proxies import TrustedProxies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi._wsgi.gateway import Application

__all__ = ["ForwardedScheme"]

_CONTRADICTION = b"The header fields contradict each other about the scheme.\n"


class ForwardedScheme:
    """Middleware that sets `wsgi.url_scheme` from fields of trusted peers.

    Args:
        application: the application.
        peers: addresses and networks; "*" for all. UNIX sockets are always trusted.
        fields: names of fields, each with the value that means "https".
    """

    def __init__(
        self, application: Application, peers: Iterable[str], fields: Mapping[str, str]
    ) -> None:
        self._application = application
        self._peers = TrustedProxies([*peers, "unix"], 1, ())
        self._fields = [
            (f"HTTP_{name.upper().replace('-', '_')}", value)
            for name, value in fields.items()
        ]

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Call the application; answer 400 if the fields contradict each other."""
        schemes = {
            "https" if value == secure else "http"
            for name, secure in self._fields
            if (value := environ.get(name)) is not None
        }
        if schemes and self._peers.is_trusted(environ["REMOTE_ADDR"]):
            if len(schemes) > 1:
                start_response(
                    "400 Bad Request",
                    [
                        ("Content-Type", "text/plain"),
                        ("Content-Length", str(len(_CONTRADICTION))),
                    ],
                )
                return [_CONTRADICTION]
            environ["wsgi.url_scheme"] = schemes.pop()
        return self._application(environ, start_response)
