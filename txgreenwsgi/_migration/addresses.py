"""Addresses in the syntax of gunicorn, as endpoint strings.

It knows both syntaxes. It must never resolve a name or open a socket.
"""

from __future__ import annotations

import re

from txgreenwsgi._server.endpoint_strings import escaped, tcp_endpoint, with_tls

__all__ = ["AddressError", "endpoint_for", "is_unix"]

_DEFAULT_PORT = "8000"


class AddressError(ValueError):
    """An address is invalid in gunicorn too."""


def is_unix(address: str) -> bool:
    """Return whether an address is that of a UNIX socket."""
    return address.startswith("unix:")


def endpoint_for(address: str, *, tls: bool = False, backlog: int = 0) -> str:
    """Return the endpoint string for an address.

    Args:
        address: such as "127.0.0.1:8000", ":80", "[::1]:80", "unix:/run/app.sock" or
            "fd://3".
        tls: whether connections use TLS.
        backlog: the length of the backlog; 0 for the default.

    Raises:
        AddressError: the address has no valid port or descriptor.
    """
    endpoint = _plain(address.strip())
    if backlog and not endpoint.startswith("fd:"):
        endpoint += f":backlog={backlog}"
    return with_tls(endpoint) if tls else endpoint


def _plain(address: str) -> str:
    if is_unix(address):
        path = re.sub(r"\Aunix:(//)?", "", address)
        return f"unix:{escaped(path)}"
    if address.startswith("fd://"):
        number = address.removeprefix("fd://")
        if not number.isdigit():
            raise AddressError(f"{address!r} has no valid descriptor")
        return f"fd:{number}"
    address = address.removeprefix("tcp://")
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        port = port.removeprefix(":") or _DEFAULT_PORT
    elif ":" in address:
        host, port = address.split(":")[:2]
    else:
        host, port = address, _DEFAULT_PORT
    if not port.isdigit() or int(port) > 65535:
        raise AddressError(f"{address!r} has no valid port")
    host = host.lower()
    # The default of Linux for gunicorn's socket.
    more = ":v6only=0" if host == "::" else ""
    return f"{tcp_endpoint(host, port)}{more}"
