"""Parts of endpoint strings, for errors and for translated configurations.

It knows the syntax of Twisted and of `https:`. It must never parse a string.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escaped", "tcp_endpoint", "with_tls"]

_SPECIAL: Final = re.compile(r"([\\:=])")


def escaped(text: str) -> str:
    """Return text as the value of an argument."""
    return _SPECIAL.sub(r"\\\1", text)


def tcp_endpoint(host: str, port: str) -> str:
    """Return the endpoint string for a host and a port.

    Args:
        host: an address without brackets, or "localhost"; "" for all addresses.
        port: the number of the port.
    """
    if host in ("", "0.0.0.0"):
        return f"tcp:{port}"
    if host == "::":
        return f"tcp6:{port}"
    if host == "localhost":
        host = "127.0.0.1"
    kind = "tcp6" if ":" in host else "tcp"
    return f"{kind}:{port}:interface={escaped(host)}"


def with_tls(endpoint: str) -> str:
    """Return the `https:` endpoint string for another one."""
    return f"https:{endpoint.removeprefix('tcp:')}"
