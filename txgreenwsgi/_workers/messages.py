"""The form of messages between processes: JSON lines, which may carry descriptors.

It must never know the meaning of a message. It uses no reactor, because a fork server
has none.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_DESCRIPTORS", "Incoming", "Message", "close_descriptors", "encoded"]

Message: TypeAlias = dict[str, Any]
"""The fields of one message; JSON values."""

#: Maximum number of descriptors in one message; the kernel's limit is 253.
MAX_DESCRIPTORS: Final = 200

_READ_BYTES: Final = 65536

# Bound at import: the application patches `socket` later.
_recv_fds = socket.recv_fds


def encoded(message: Message, descriptors: int = 0) -> bytes:
    """Return the line of a message.

    Args:
        message: JSON values.
        descriptors: the number of descriptors that are sent along.
    """
    if descriptors:
        message = {**message, "descriptors": descriptors}
    return json.dumps(message).encode("ascii") + b"\n"


class Incoming:
    """The bytes and descriptors that have arrived, and no function has taken yet."""

    def __init__(self) -> None:
        self._data = b""
        self._descriptors: list[int] = []

    def receive(self, connected: socket.socket) -> bool:
        """Receive once from a stream socket; return False at the end of the stream.

        Raises:
            OSError: as `socket.recv_fds`.
        """
        data, descriptors, _flags, _address = _recv_fds(
            connected, _READ_BYTES, MAX_DESCRIPTORS
        )
        self._data += data
        self._descriptors += descriptors
        return bool(data)

    def messages(self) -> Iterator[tuple[Message, list[int]]]:
        """Take complete messages, each with its descriptors, which the caller owns."""
        *lines, self._data = self._data.split(b"\n")
        for line in lines:
            message = json.loads(line)
            count = message.pop("descriptors", 0)
            own, self._descriptors = (
                self._descriptors[:count],
                self._descriptors[count:],
            )
            yield message, own

    def close(self) -> None:
        """Close the descriptors."""
        close_descriptors(self._descriptors)
        self._descriptors = []


def close_descriptors(descriptors: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in descriptors:
        os.close(fd)
