"""The header of the PROXY protocol, versions 1 and 2, without I/O.

A proxy sends it ahead of everything else on a connection, also of a TLS handshake, to
name the client for which it has opened the connection. Source: proxy-protocol.txt of
HAProxy, sections 2.1 and 2.2.

Knows the header. Must never know from which peers it is accepted, or what follows it.
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MAX_BYTES",
    "MAX_LINE_BYTES",
    "SIGNATURE",
    "Place",
    "ProxyHeader",
    "ProxyHeaderError",
    "ProxyHeaderReader",
    "crc32c",
]

#: The first bytes of version 2.
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_WORD: Final = b"PROXY "

#: Maximum length of a header of version 1, with its CRLF.
MAX_LINE_BYTES: Final = 107
#: Maximum length of a header of version 2. The protocol permits four times as much; a
#: sender has to send it at once, and HAProxy's buffers have this size.
MAX_BYTES: Final = 16384

_FIXED_BYTES: Final = 16

_LINE: Final = re.compile(
    rb"PROXY TCP(4|6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n\Z"
)
# Receivers ignore what follows the word.
_UNKNOWN_LINE: Final = re.compile(rb"PROXY UNKNOWN( [ -~]*)?\r\n\Z")

# Section 2.2: command, address family with the length of its addresses, transport.
_LOCAL: Final = 0
_PROXY: Final = 1
_UNSPECIFIED: Final = 0
_INET: Final = 1
_INET6: Final = 2
_UNIX: Final = 3
_ADDRESS_BYTES: Final = {_UNSPECIFIED: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_STREAM: Final = 1
_DATAGRAM: Final = 2

_TLV_CRC32C: Final = 0x03
_TLV_SSL: Final = 0x20
_CLIENT_SSL: Final = 0x01


class ProxyHeaderError(Exception):
    """The bytes are no header that is accepted.

    The message is a clause that continues "the peer ...". It contains no data from the
    peer except numbers.

    Attributes:
        remedy: the correction in the configuration of the proxy; "" if its header is
            malformed.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.remedy = remedy


class Place(NamedTuple):
    """One end of a connection, as text. Both "" for a UNIX socket."""

    address: str
    port: str


class ProxyHeader(NamedTuple):
    """A header.

    Attributes:
        source: the client; None if the connection is the proxy's own (a health check),
            or the proxy does not know the client's address. Then the peer of the
            connection counts.
        destination: the place to which the client has connected; None if `source` is.
        is_tls: whether the client speaks TLS with the proxy.
    """

    source: Place | None
    destination: Place | None
    is_tls: bool = False


_NO_PLACES: Final = ProxyHeader(None, None)


class ProxyHeaderReader:
    """Reads one header from bytes in any pieces.

    Args:
        v1: whether version 1 is accepted.
        v2: whether version 2 is accepted.

    Attributes:
        rest: the bytes that follow the header, once `feed` has returned it.
    """

    __slots__ = ("_data", "_v1", "_v2", "rest")

    def __init__(self, v1: bool = True, v2: bool = True) -> None:
        self._data = b""
        self._v1 = v1
        self._v2 = v2
        self.rest = b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Return the header; None if it is incomplete.

        Raises:
            ProxyHeaderError: the bytes are not the beginning of a valid header. No
                more bytes may be fed then.
        """
        self._data = data = self._data + data
        read: Callable[[bytes], ProxyHeader]
        if data.startswith(SIGNATURE[: len(data)]):
            end, read = self._end_of_binary(data), _read_binary
        elif data.startswith(_WORD[: len(data)]):
            end, read = self._end_of_line(data), _read_line
        else:
            raise ProxyHeaderError(
                "has sent no header", "let it send the PROXY protocol"
            )
        if not end:
            return None
        self._data, self.rest = b"", data[end:]
        return read(data[:end])

    def _end_of_line(self, data: bytes) -> int:
        """Return the length of a header of version 1; 0 if it is incomplete."""
        if not self._v1 and len(data) >= len(_WORD):
            raise ProxyHeaderError(
                "has sent a header of version 1", "let it send version 2"
            )
        feed = data.find(b"\n", 0, MAX_LINE_BYTES)
        if feed >= 0:
            return feed + 1
        if len(data) >= MAX_LINE_BYTES:
            raise ProxyHeaderError(
                f"has sent a header of version 1 with more than {MAX_LINE_BYTES} bytes"
            )
        return 0

    def _end_of_binary(self, data: bytes) -> int:
        """Return the length of a header of version 2; 0 if it is incomplete."""
        if not self._v2 and len(data) >= len(SIGNATURE):
            raise ProxyHeaderError(
                "has sent a header of version 2", "let it send version 1"
            )
        if len(data) < _FIXED_BYTES:
            return 0
        end = _FIXED_BYTES + int.from_bytes(data[14:16], "big")
        if end > MAX_BYTES:
            raise ProxyHeaderError(
                f"has sent a header of {end} bytes, which is more than {MAX_BYTES}",
                "let it send fewer or shorter fields (TLVs)",
            )
        return end if len(data) >= end else 0


def _read_line(line: bytes) -> ProxyHeader:
    """Return the content of a complete header of version 1."""
    parts = _LINE.match(line)
    if parts is None:
        if _UNKNOWN_LINE.match(line):
            return _NO_PLACES
        raise ProxyHeaderError("has sent a malformed header of version 1")
    family = IPv4Address if parts[1] == b"4" else IPv6Address
    try:
        source, destination = (
            str(_without_mapping(family(text.decode("ascii"))))
            for text in (parts[2], parts[3])
        )
    except ValueError:
        raise ProxyHeaderError(
            "has sent a header of version 1 with an invalid address"
        ) from None
    ports = parts[4].decode("ascii"), parts[5].decode("ascii")
    if max(map(int, ports)) > 65535:
        raise ProxyHeaderError("has sent a header of version 1 with an invalid port")
    return ProxyHeader(Place(source, ports[0]), Place(destination, ports[1]))


def _without_mapping(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address of an IPv4-mapped one (RFC 4291 section 2.5.5.2)."""
    return getattr(address, "ipv4_mapped", None) or address


def _read_binary(data: bytes) -> ProxyHeader:
    """Return the content of a complete header of version 2."""
    version, command = divmod(data[12], 16)
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(
            f"has sent a header with the unknown version or command {data[12]:#04x}"
        )
    if command == _LOCAL:
        return _NO_PLACES  # the rest is ignored, whatever it is
    family, transport = divmod(data[13], 16)
    if family not in _ADDRESS_BYTES or transport not in (
        _UNSPECIFIED,
        _STREAM,
        _DATAGRAM,
    ):
        raise ProxyHeaderError(
            f"has sent a header with the unknown address family {data[13]:#04x}"
        )
    start = _FIXED_BYTES + _ADDRESS_BYTES[family]
    if len(data) < start:
        raise ProxyHeaderError("has sent a header that is too short for its addresses")
    is_tls = False
    if family != _UNSPECIFIED:  # else the length of the addresses is unknown
        is_tls = _read_fields(data, start)
    if transport != _STREAM:
        return _NO_PLACES
    addresses = data[_FIXED_BYTES:start]
    if family == _UNIX:
        return ProxyHeader(Place("", ""), None, is_tls)
    if family == _UNSPECIFIED:
        return _NO_PLACES
    size = 4 if family == _INET else 16
    source = _place(addresses[:size], addresses[-4:-2])
    destination = _place(addresses[size : 2 * size], addresses[-2:])
    return ProxyHeader(source, destination, is_tls)


def _place(address: bytes, port: bytes) -> Place:
    made = IPv4Address(address) if len(address) == 4 else IPv6Address(address)
    return Place(str(_without_mapping(made)), str(int.from_bytes(port, "big")))


def _read_fields(data: bytes, start: int) -> bool:
    """Check the fields (TLVs) behind the addresses; return whether one says TLS."""
    is_tls = False
    at = start
    while at < len(data):
        kind = data[at]
        value = at + 3
        at = value + int.from_bytes(data[at + 1 : value], "big")
        if value > len(data) or at > len(data):
            raise ProxyHeaderError("has sent a header with a truncated field (TLV)")
        if kind == _TLV_CRC32C:
            _check_sum(data, value, at)
        elif kind == _TLV_SSL and at > value:
            is_tls = bool(data[value] & _CLIENT_SSL)
    return is_tls


def _check_sum(data: bytes, start: int, end: int) -> None:
    """Raise if the checksum in a field is not that of the header (section 2.2.3)."""
    size = end - start
    expected = crc32c(data[:start] + bytes(size) + data[end:])
    if size != 4 or int.from_bytes(data[start:end], "big") != expected:
        raise ProxyHeaderError("has sent a header with a wrong checksum")


def crc32c(data: bytes) -> int:
    """Return the CRC32c of `data` (RFC 9260 appendix A)."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _crc_table() -> list[int]:
    table: list[int] = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table
