"""The addresses of a server as a person types them.

It knows addresses and the schemes of endpoint strings. It must never know ports.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

__all__ = ["url_of", "url_of_name"]

# "ssl:", "tls:" and the like, also inside of "haproxy:ssl:".
_TLS: Final = re.compile(r"https:|(?:[a-z0-9]+:)*?(?:ssl|tls)\w*:")
_SOCKET_NAME: Final = re.compile(r"\[?(.*?)\]?:([0-9]+)\Z")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def url_of(address: IAddress, endpoint: str = "") -> str:
    """Return the URL of a listening socket, or the path of a UNIX socket.

    A URL that stands for all addresses names the loopback address, so that it opens in
    a browser of the same machine. Of another kind of address, returns the text.

    Args:
        address: of the socket.
        endpoint: the endpoint string that the socket was opened with; tells TLS.
    """
    if isinstance(address, UNIXAddress):
        name = os.fsdecode(address.name or b"")
        return f"unix:{name.replace(chr(0), '@', 1)}"
    if not isinstance(address, (IPv4Address, IPv6Address)):
        return str(address)
    scheme = "https" if _TLS.match(endpoint) else "http"
    host = _clickable(address.host)
    port = "" if address.port == _DEFAULT_PORTS[scheme] else f":{address.port}"
    return f"{scheme}://{host}{port}/"


def url_of_name(name: str, endpoint: str = "") -> str:
    """Return the URL for a socket's name: "127.0.0.1:80", "[::1]:80" or a path."""
    found = _SOCKET_NAME.match(name)
    if found is None or name.startswith("/"):
        return url_of(UNIXAddress(name), endpoint)
    kind = IPv6Address if ":" in found[1] else IPv4Address
    return url_of(kind("TCP", found[1], int(found[2])), endpoint)


def _clickable(host: str) -> str:
    plain = host.partition("%")[0]
    parsed = ip_address(plain)
    if parsed.is_unspecified:
        return "127.0.0.1" if parsed.version == 4 else "[::1]"
    # RFC 6874: the percent sign of a zone is escaped.
    return f"[{host.replace('%', '%25')}]" if parsed.version == 6 else host
