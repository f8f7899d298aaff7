"""The client behind trusted reverse proxies: Forwarded and X-Forwarded-* fields.

A proxy appends what it knows about its own client to these fields. Only the last
entries, as many as there are trusted proxies, come from a proxy; whatever is in front
of them comes from the client, and may be forged. Fields that no trusted proxy has
written are removed, so that the application cannot take them for true.

It knows the fields (RFC 7239, and the older ones by convention). It must never know
transports or the application.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from .stream import Ends

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv6Network

__all__ = ["MAX_PEERS", "ProxyFieldError", "TrustedProxies"]

_FORWARDED: Final = "HTTP_FORWARDED"
_PREFIX: Final = "HTTP_X_FORWARDED_"
_REAL_IP: Final = "HTTP_X_REAL_IP"
_KNOWN: Final = (
    _FORWARDED,
    *(_PREFIX + name for name in ("FOR", "PROTO", "HOST", "PORT", "BY")),
)
# RFC 4291 section 2.5.5.2: the length of ::ffff:0:0/96.
_MAPPED_BITS: Final = 96
# RFC 4007 section 11: the zone of a link-local address, such as eth0.
_ZONE: Final = re.compile(r"[\w.-]+\Z", re.ASCII)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

#: Maximum number of peers whose trust is remembered.
MAX_PEERS: Final = 1024

# RFC 7239 section 4, with the optional white space that proxies add.
_PAIR: Final = re.compile(
    r"""[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=
    (?:"((?:[^"\\]|\\.)*)"|([^",;\s]*))[ \t]*(;|,|\Z)""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)")
# RFC 3986 section 3.2.2, without percent-encoding and zones.
_HOST: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~!$&'()*+;=-]+)(?::([0-9]+))?\Z"
)
_NODE: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}|_[\w.-]+))?\Z")
# RFC 7239 sections 6.2 and 6.3: the proxy hides its client.
_HIDDEN: Final = re.compile(r"(?:unknown|_[\w.-]+)\Z", re.IGNORECASE)


class ProxyFieldError(Exception):
    """A trusted proxy has sent a field that makes no sense.

    The message names the field and contains no data from the client.
    """


class TrustedProxies:
    """The proxies whose fields are believed.

    Args:
        peers: addresses and networks, "unix" for every UNIX socket, "*" for all.
        count: the number of proxies in front of each other, all of them trusted.
        fields: the names of the fields that they set, in lower case.
    """

    def __init__(self, peers: Iterable[str], count: int, fields: Iterable[str]) -> None:
        peers = set(peers)
        self._all = "*" in peers
        self._unix = "unix" in peers
        self._networks: list[IPv4Network | IPv6Network] = [
            _network(peer) for peer in peers - {"*", "unix"}
        ]
        self._count = count
        self._fields = {f"HTTP_{name.upper().replace('-', '_')}" for name in fields}
        self._trusted: dict[str, bool] = {}

    def is_trusted(self, address: str) -> bool:
        """Return whether the peer at an address is trusted; "" is a UNIX socket."""
        trusted = self._trusted.get(address)
        if trusted is None:
            trusted = self._all or self._is_in_networks(address)
            if len(self._trusted) >= MAX_PEERS:
                self._trusted.clear()
            self._trusted[address] = trusted
        return trusted

    def _is_in_networks(self, address: str) -> bool:
        if not address:
            return self._unix
        try:
            peer = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(peer in network for network in self._networks)

    def ends_behind(self, variables: dict[str, str], ends: Ends) -> Ends:
        """Return the ends of a request as the first trusted proxy saw them.

        Args:
            variables: the fields of the request as environ variables. Updated: fields
                without trust are removed, of the others the entries in front of the
                trusted ones, and HTTP_HOST is set.
            ends: those of the connection.

        Raises:
            ProxyFieldError: a trusted field is malformed.
        """
        if not self.is_trusted(ends.remote_addr):
            for name in [name for name in variables if _is_forwarding(name)]:
                del variables[name]
            return ends
        for name in _KNOWN:
            if name not in self._fields:
                variables.pop(name, None)
        if _FORWARDED in self._fields:
            seen = self._read_forwarded(variables)
        else:
            seen = self._read_separate(variables)
        return _seen_by_proxy(seen, variables, ends)

    def _read_separate(self, variables: dict[str, str]) -> dict[str, str]:
        """Return the values of X-Forwarded-* by the parameters of Forwarded."""
        seen: dict[str, str] = {}
        for name in self._fields:
            value = variables.get(name)
            if value is None:
                continue
            entries = [entry.strip(" \t") for entry in value.split(",")]
            entries = entries[-self._count :]
            variables[name] = ", ".join(entries)
            parameter = name.removeprefix(_PREFIX).lower()
            seen[parameter] = _unquoted(entries[0])
        return seen

    def _read_forwarded(self, variables: dict[str, str]) -> dict[str, str]:
        value = variables.get(_FORWARDED)
        if value is None:
            return {}
        elements = _elements_of(value)[-self._count :]
        variables[_FORWARDED] = ", ".join(text for text, _ in elements)
        return elements[0][1]


def _network(text: str) -> IPv4Network | IPv6Network:
    """Return a network; that of IPv4-mapped addresses (RFC 4291) as one of IPv4.

    The addresses of peers are compared without this mapping.
    """
    network = ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _is_forwarding(name: str) -> bool:
    return name in (_FORWARDED, _REAL_IP) or name.startswith(_PREFIX)


def _elements_of(value: str) -> Sequence[tuple[str, dict[str, str]]]:
    """Return text and parameters of each element of Forwarded (RFC 7239 section 4)."""
    elements: list[tuple[str, dict[str, str]]] = []
    parameters: dict[str, str] = {}
    position = start = 0
    while True:
        pair = _PAIR.match(value, position)
        if pair is None or pair[1].lower() in parameters:
            raise ProxyFieldError("the field Forwarded is malformed")
        quoted = pair[2]
        text = pair[3] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        parameters[pair[1].lower()] = text
        position = pair.end()
        if pair[4] != ";":
            element = value[start : pair.start(4)].strip(" \t")
            elements.append((element, parameters))
            if not pair[4]:
                return elements
            parameters, start = {}, position


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return _ESCAPED.sub(r"\1", text[1:-1])
    return text


def _seen_by_proxy(seen: dict[str, str], variables: dict[str, str], ends: Ends) -> Ends:
    name, port, address, client_port, scheme, more = ends
    if client := seen.get("for"):
        address, client_port = _client_of(client, address, client_port)
    given_port = ""
    if proto := seen.get("proto"):
        scheme = proto.lower()
        if scheme not in _DEFAULT_PORTS:
            raise ProxyFieldError("the forwarded protocol is neither http nor https")
        port = given_port = _DEFAULT_PORTS[scheme]
    host = None
    if seen.get("host"):
        host = _HOST.match(seen["host"])
        if host is None:
            raise ProxyFieldError("the forwarded host is malformed")
        name = host[1]
        port = given_port = host[2] or _DEFAULT_PORTS.get(scheme, port)
    if seen.get("port"):
        port = given_port = seen["port"]
    if given_port and not (given_port.isascii() and given_port.isdigit()):
        raise ProxyFieldError("the forwarded port is not a number")
    if len(given_port) > 5 or int(given_port or "0") > 65535:
        raise ProxyFieldError("the forwarded port is out of range")
    if host is not None:
        default = port == _DEFAULT_PORTS.get(scheme)
        variables["HTTP_HOST"] = name if default else f"{name}:{port}"
    return Ends(name, port, address, client_port, scheme, more)


def _client_of(node: str, address: str, port: str) -> tuple[str, str]:
    """Return address and port of a node (RFC 7239 section 6); the port may be ""."""
    try:
        # X-Forwarded-For has IPv6 addresses without brackets.
        return _address(node), ""
    except ValueError:
        pass
    if _HIDDEN.match(node):
        return address, port
    parts = _NODE.match(node)
    if parts is None:
        raise ProxyFieldError("the forwarded client is malformed")
    if parts[2] and _HIDDEN.match(parts[2]):
        return address, port
    try:
        found = _address(parts[1] or parts[2] or "")
    except ValueError:
        raise ProxyFieldError("the forwarded client is not an address") from None
    number = parts[3] or ""
    if number.startswith("_"):
        return found, ""
    if int(number or "0") > 65535:
        raise ProxyFieldError("the port of the forwarded client is out of range")
    return found, number


def _address(text: str) -> str:
    """Return an address in its usual form: IPv4 for an IPv4-mapped one.

    Raises:
        ValueError: it is none.
    """
    found = ip_address(text)
    # Python accepts any text as a zone.
    zone = getattr(found, "scope_id", None)
    if zone and not _ZONE.match(zone):
        raise ValueError("the zone is malformed")
    return str(getattr(found, "ipv4_mapped", None) or found)
