"""The state of TCP connections in the kernel, for tests on real sockets.

It knows Linux. It must never know what a connection is for.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["in_flight", "in_flight_to"]

#: The place of tcpi_unacked in `struct tcp_info` (linux/tcp.h), and a sufficient size.
_UNACKNOWLEDGED_AT, _INFO_BYTES = 24, 64

_OPEN_FILES = "/proc/self/fd"


def in_flight(connection: socket.socket) -> bool:
    """Return whether the peer has not acknowledged all segments that were sent.

    A kernel may acknowledge up to 40 ms after the arrival. Bytes that wait for room at
    the peer were not sent. False where the system does not tell.
    """
    if not hasattr(socket, "TCP_INFO"):
        return False
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    return bool(struct.unpack_from("I", info, _UNACKNOWLEDGED_AT)[0])


def in_flight_to(ports: Collection[int]) -> bool:
    """Return whether segments that this process has sent to TCP ports are in flight."""
    if not ports or not os.path.isdir(_OPEN_FILES):
        return False
    return any(_is_in_flight_to(int(name), ports) for name in os.listdir(_OPEN_FILES))


def _is_in_flight_to(fd: int, ports: Collection[int]) -> bool:
    try:
        connection = socket.socket(fileno=fd)
    except OSError:
        return False  # no socket, or closed
    try:
        if connection.family != socket.AF_INET:
            return False
        return connection.getpeername()[1] in ports and in_flight(connection)
    except OSError:
        return False  # not connected
    finally:
        connection.detach()
