"""A descriptor that is readable while a flag is set.

For code that waits with select() or poll() for bytes that this process has received
already. It must never know what the flag means.
"""

from __future__ import annotations

# Not `socket`, whose functions may be patched to park.
from _socket import socketpair

__all__ = ["ReadableFlag"]


class ReadableFlag:
    """A pair of connected sockets; one byte is in flight while the flag is set.

    Call from the reactor's thread.
    """

    def __init__(self) -> None:
        self._application, self._server = socketpair()
        self._application.setblocking(False)
        self._server.setblocking(False)
        self._set = False

    def fileno(self) -> int:
        """Return the descriptor, always writable; -1 after `close`."""
        return self._application.fileno()

    def set(self, readable: bool) -> None:
        """Set or clear the flag. A no-op if it is so already."""
        if readable == self._set:
            return
        self._set = readable
        if readable:
            self._server.send(b"\0")
        else:
            self._application.recv(1)

    def close(self) -> None:
        """Close the descriptors."""
        self._application.close()
        self._server.close()
