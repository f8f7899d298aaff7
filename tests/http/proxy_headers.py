"""Headers of the PROXY protocol, as a proxy sends them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from txgreenwsgi._http.proxy_protocol import SIGNATURE, crc32c

__all__ = ["LOCAL", "binary", "checksummed", "field", "line"]

#: The health check of a proxy that sends version 2.
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def line(
    source: str, destination: str, source_port: int, destination_port: int
) -> bytes:
    """Return a header of version 1."""
    version = ip_address(source).version
    text = f"PROXY TCP{version} {source} {destination} {source_port} {destination_port}"
    return text.encode() + b"\r\n"


def binary(
    source: str,
    destination: str,
    source_port: int,
    destination_port: int,
    fields: bytes = b"",
) -> bytes:
    """Return a header of version 2."""
    ends = ip_address(source), ip_address(destination)
    content = ends[0].packed + ends[1].packed
    content += struct.pack(">HH", source_port, destination_port) + fields
    family = 0x11 if ends[0].version == 4 else 0x21
    return SIGNATURE + bytes([0x21, family]) + struct.pack(">H", len(content)) + content


def field(kind: int, value: bytes) -> bytes:
    """Return a field (TLV)."""
    return struct.pack(">BH", kind, len(value)) + value


def checksummed(header: bytes) -> bytes:
    """Return a header that has a field of zeros for the checksum, with the checksum."""
    empty = field(3, bytes(4))
    at = header.index(empty) + 3
    return header[:at] + struct.pack(">I", crc32c(header)) + header[at + 4 :]
