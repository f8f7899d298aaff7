"""The settings of the PROXY protocol, compared with the endpoints.

It knows endpoint strings. It must never know connections: most servers do not use the
protocol, and need no more than this.
"""

from __future__ import annotations

from socket import AF_UNIX
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.endpoints import UNIXServerEndpoint

from .adopted import adopted_endpoint
from .errors import EndpointError
from .https import below_tls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IStreamServerEndpoint

    from txgreenwsgi.settings import Settings

__all__ = ["UnusableSetting", "unusable_setting"]

_REMEDY: Final = "give the addresses of your proxies, such as 10.0.0.0/8"


class UnusableSetting(NamedTuple):
    """A setting that does not fit the endpoints.

    Attributes:
        name: its name.
        value: its value.
        problem: the reason, as a clause that continues "the value ...".
        remedy: the correction, as an imperative.
    """

    name: str
    value: Any
    problem: str
    remedy: str


def unusable_setting(
    settings: Settings, listen: Iterable[str | IStreamServerEndpoint]
) -> UnusableSetting | None:
    """Return the setting of the PROXY protocol that does not fit the endpoints.

    None if they fit. Opens nothing.
    """
    version, peers = settings.proxy_protocol, settings.proxy_protocol_from
    if version == "off":
        if not peers:
            return None
        return UnusableSetting(
            "proxy_protocol_from",
            ",".join(peers),
            "has no effect while proxy_protocol is off",
            "give proxy_protocol auto, v1 or v2, or remove it",
        )
    for each in listen:
        if isinstance(each, str) and each.startswith("haproxy:"):
            return UnusableSetting(
                "proxy_protocol",
                version,
                f"cannot be combined with the endpoint {each!r}, which reads a header "
                "too",
                f"give the endpoint {each.removeprefix('haproxy:')!r}",
            )
        if not peers and not _is_unix(each):
            return UnusableSetting(
                "proxy_protocol",
                version,
                f"needs proxy_protocol_from for the endpoint {each!r}: a header from "
                "any peer would be believed",
                _REMEDY,
            )
    return None


def _is_unix(listen: str | IStreamServerEndpoint) -> bool:
    """Return whether an endpoint is not known to be other than a UNIX socket."""
    if not isinstance(listen, str):
        family = getattr(listen, "family", getattr(listen, "addressFamily", None))
        return isinstance(listen, UNIXServerEndpoint) or family == AF_UNIX
    try:
        listen = below_tls(listen)
        if listen.startswith("unix:"):
            return True
        adopted: Any = adopted_endpoint(object(), listen)
    except EndpointError:
        return True  # reported elsewhere
    return adopted is not None and getattr(adopted, "family", AF_UNIX) == AF_UNIX
