"""The link between master and worker: JSON lines over a UNIX socket pair.

A message is an object on one line, and may carry descriptors. The end of the stream
means that the other process has ended.

It knows sockets. It must never know the meaning of a message.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from zope.interface import implementer

from .messages import Incoming, close_descriptors, encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IReactorFDSet
    from twisted.python.failure import Failure

    from .messages import Message

__all__ = ["Link"]


@implementer(IReadDescriptor, IWriteDescriptor)
class Link:
    """One end of a link. Call from the reactor greenlet.

    Args:
        connected: a stream socket of a UNIX socket pair; owned by the link.
        reactor: watches the socket.
        received: called with each message and its descriptors, which the function
            owns.
        lost: called once when the other end is closed.
    """

    def __init__(
        self,
        connected: socket.socket,
        reactor: IReactorFDSet,
        received: Callable[[Message, list[int]], object],
        lost: Callable[[], object],
    ) -> None:
        self._socket = connected
        self._reactor = reactor
        self._received = received
        self._lost = lost
        self._incoming = Incoming()
        # Bytes to send, each with the descriptors that go with the first of them.
        self._output: deque[tuple[bytes, Sequence[int]]] = deque()
        self._open = True
        connected.setblocking(False)
        reactor.addReader(self)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message; it is discarded if the link is closed. Never parks.

        Args:
            message: JSON values.
            descriptors: sent along. Duplicates are kept until they are sent, so the
                caller may close its own.
        """
        if not self._open:
            return
        data = encoded(message, len(descriptors))
        kept = [os.dup(fd) for fd in descriptors]
        if not self._output:
            self._reactor.addWriter(self)
        self._output.append((data, kept))
        self.doWrite()

    @property
    def is_sending(self) -> bool:
        """Whether a part of a message was not sent yet."""
        return self._open and bool(self._output)

    def close(self) -> None:
        """Close the link. `lost` is not called. A no-op if it is closed."""
        if not self._open:
            return
        self._open = False
        self._reactor.removeReader(self)
        self._discard_output()
        self._incoming.close()
        self._socket.close()

    def finish(self) -> None:
        """Pass on all messages that have arrived, and close.

        For the link of a process that has ended. `lost` is not called.
        """
        self._lost = _no_op
        while self._open and self._read():
            pass
        self.close()

    # Called by the reactor.

    def fileno(self) -> int:
        """Return the descriptor; -1 if the link is closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the name for Twisted's log lines."""
        return "link"

    def doRead(self) -> None:
        """Read, and pass complete messages on."""
        self._read()

    def _read(self) -> bool:
        """Read; return False if nothing has arrived, or nothing more will."""
        try:
            arrived = self._incoming.receive(self._socket)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            arrived = False
        if not arrived:
            self._end()
            return False
        for message, descriptors in self._incoming.messages():
            self._received(message, descriptors)
            if not self._open:  # closed by a message
                return False
        return True

    def doWrite(self) -> None:
        """Send what the socket accepts."""
        while self._output:
            data, descriptors = self._output[0]
            try:
                if descriptors:
                    sent = socket.send_fds(self._socket, [data], list(descriptors))
                else:
                    sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The other process has ended: reading tells.
                self._discard_output()
                return
            close_descriptors(descriptors)
            if sent < len(data):
                self._output[0] = data[sent:], ()
            else:
                self._output.popleft()
        self._reactor.removeWriter(self)

    def _discard_output(self) -> None:
        for _data, descriptors in self._output:
            close_descriptors(descriptors)
        self._output.clear()
        self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        """Close the link when the reactor stops, or after an error."""
        self.close()

    def _end(self) -> None:
        if self._open:
            self.close()
            self._lost()


def _no_op() -> None:
    """No-op callback."""
