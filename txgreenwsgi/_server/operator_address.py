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

__all__ = ["check_operator_address", "is_local", "operator_endpoint"]

# Beside Twisted's syntax, in which a port follows "tcp:".
_HOST_FIRST: Final = re.compile(
    r"tcp:(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9.-]*[A-Za-z.][A-Za-z0-9.-]*)):"
    r"([0-9]{1,5})\Z"
)
_INTERFACE: Final = re.compile(r"(?<!\\):interface=((?:[^:\\]|\\.)*)")


def operator_endpoint(text: str) -> str:
    """Return the endpoint string for an address such as `tcp:127.0.0.1:9090`."""
    found = _HOST_FIRST.match(text)
    if found is None:
        return text
    host = found[1] or found[2]
    return tcp_endpoint(host, found[3])


def check_operator_address(text: str, *, paths_are_final: bool = True) -> None:
    """Validate an address. Opens no socket.

    Args:
        text: the address.
        paths_are_final: see `check_endpoint`.

    Raises:
        EndpointError: it cannot be used; the error quotes it as given.
    """
    if re.match(r"(?:https|ssl|tls):", text):
        raise EndpointError(
            text,
            "uses TLS, which is not offered here",
            "give tcp:127.0.0.1:PORT or unix:PATH, and let a reverse proxy add TLS",
        )
    try:
        check_endpoint(operator_endpoint(text), paths_are_final=paths_are_final)
    except EndpointError as error:
        raise EndpointError(text, error.problem, error.remedy) from error


def is_local(text: str) -> bool:
    """Return whether only programs on this machine reach an address.

    Args:
        text: a valid address.
    """
    endpoint = operator_endpoint(text)
    if endpoint.startswith("unix:"):
        return True
    found = _INTERFACE.search(endpoint)
    if not endpoint.startswith(("tcp:", "tcp6:")) or found is None:
        return False
    try:
        return ip_address(re.sub(r"\\(.)", r"\1", found[1])).is_loopback
    except ValueError:
        return False
