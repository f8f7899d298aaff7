"""Addresses of listeners for operators, beside those of the application.

An address is an endpoint string, or `tcp:HOST:PORT`. It knows their syntax. It must
never listen.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from .endpoint_strings import tcp_endpoint
from .endpoints import check_endpoint
from .errors import EndpointError

__all__ = ["is_local", "operator_endpoint"]

# Beside Twisted's syntax, in which a port follows "tcp:".
_HOST_FIRST: Final = re.compile(
    r"tcp6?:(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9.-]*[A-Za-z.][A-Za-z0-9.-]*)):"
    r"([0-9]{1,5})\Z"
)
_INTERFACE: Final = re.compile(r"(?<!\\):interface=((?:[^:\\]|\\.)*)")


def operator_endpoint(text: str, *, paths_are_final: bool = True) -> str:
    """Return the endpoint string for an address such as `tcp:127.0.0.1:9090`.

    Opens no socket.

    Args:
        text: the address.
        paths_are_final: see `check_endpoint`.

    Raises:
        EndpointError: it cannot be used.
    """
    if re.match(r"(?:https|ssl|tls):", text):
        raise EndpointError(
            text,
            "is an endpoint with TLS, which has no options here",
            "give one on the loopback interface, and let a proxy add TLS",
        )
    found = _HOST_FIRST.match(text)
    endpoint = text
    if found is not None:
        endpoint = tcp_endpoint((found[1] or found[2]).strip("[]"), found[3])
    check_endpoint(endpoint, paths_are_final=paths_are_final)
    return endpoint


def is_local(endpoint: str) -> bool:
    """Return whether only programs on this machine reach an endpoint.

    Args:
        endpoint: a valid endpoint string.
    """
    if endpoint.startswith("unix:"):
        return True
    found = _INTERFACE.search(endpoint)
    if not endpoint.startswith(("tcp:", "tcp6:")) or found is None:
        return False
    try:
        return ip_address(re.sub(r"\\(.)", r"\1", found[1])).is_loopback
    except ValueError:
        return False
