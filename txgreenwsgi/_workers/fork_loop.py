"""The loop of a fork server: it forks on demand, and reports how its children end.

It runs without a reactor and without threads, so that a child inherits neither. Signals
that a terminal or a service manager sends to all processes have no effect: a fork
server ends when the master has no use for it and its last child has ended.

It knows processes and messages. It must never know the application.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .messages import Incoming, close_descriptors, encoded

if TYPE_CHECKING:
    import socket

    from .messages import Message

__all__ = ["ForkLoop", "end_of_status"]

# Bound at import: the application's process patches these modules later.
_fork, _read, _waitpid = os.fork, os.read, os.waitpid
_poll, _pipe = select.poll, os.pipe
_signal, _set_wakeup_fd = signal.signal, signal.set_wakeup_fd

_READ_BYTES: Final = 65536

#: Signals that processes of a group get together.
_SHARED: Final = ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2")


class ForkLoop:
    """The requests and children of one fork server.

    Args:
        link: the link to the master, blocking.
        targets: the numbers that the descriptors of a request get in the child.
    """

    def __init__(self, link: socket.socket, targets: tuple[int, ...]) -> None:
        self._link = link
        self._targets = targets
        self._incoming = Incoming()
        self._children: set[int] = set()
        self._open = True
        self._wakeup = _pipe()
        for fd in self._wakeup:
            os.set_blocking(fd, False)

    def send(self, message: Message) -> None:
        """Send a message to the master. A no-op if it has ended."""
        with suppress(OSError):
            self._link.sendall(encoded(message))

    def run(self) -> Message | None:
        """Serve requests.

        Returns:
            In a child, the start message of a worker; its descriptors have their
            numbers. In the fork server, None at its end.
        """
        before = {
            number: _signal(number, _no_op)
            for name in ("SIGCHLD", *_SHARED)
            if (number := getattr(signal, name, None)) is not None
        }
        _set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        waiting = _poll()
        waiting.register(self._wakeup[0], select.POLLIN)
        waiting.register(self._link, select.POLLIN)
        while self._open or self._children:
            for fd, _events in waiting.poll():
                if fd == self._wakeup[0]:
                    with suppress(BlockingIOError):
                        _read(fd, _READ_BYTES)
                elif not self._receive():
                    self._open = False
                    waiting.unregister(self._link)
                    self._end_children()
            self._reap()
            for message, descriptors in self._incoming.messages():
                if message["do"] == "end":
                    self._open = False
                    with suppress(KeyError):
                        waiting.unregister(self._link)
                elif self._forked(message["worker"], descriptors):
                    _set_wakeup_fd(-1)
                    for number, handler in before.items():
                        _signal(number, handler)
                    self._become(descriptors)
                    boot: Message = message["boot"]
                    return boot
        return None

    def _end_children(self) -> None:
        """Send SIGTERM to the children when the master has ended.

        A child that code blocks does not notice the end of its link.
        """
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _receive(self) -> bool:
        """Receive from the link; return False at its end."""
        try:
            return self._incoming.receive(self._link)
        except OSError:
            return False

    def _forked(self, worker: int, descriptors: list[int]) -> bool:
        """Fork; return whether this is the child."""
        try:
            pid = _fork()
        except OSError as error:
            self.send({"event": "refused", "worker": worker, "reason": str(error)})
            close_descriptors(descriptors)
            return False
        if not pid:
            return True
        self._children.add(pid)
        close_descriptors(descriptors)
        self.send({"event": "forked", "worker": worker, "pid": pid})
        return False

    def _become(self, descriptors: list[int]) -> None:
        """Give the descriptors of a child their numbers, and close the others."""
        close_descriptors(self._wakeup)
        self._incoming.close()  # those of further requests
        self._link.detach()  # its number is a target
        for fd, target in zip(descriptors, self._targets, strict=True):
            os.dup2(fd, target, inheritable=False)
            os.close(fd)

    def _reap(self) -> None:
        """Report the children that have ended."""
        for pid in list(self._children):
            try:
                found, status = _waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # the application has waited for it
                found, status = pid, 0
            if not found:
                continue
            self._children.discard(pid)
            code, number = end_of_status(status)
            self.send({"event": "ended", "pid": pid, "status": code, "signal": number})


def end_of_status(status: int) -> tuple[int | None, int | None]:
    """Return the exit status of a process, or None, and the signal that ended it.

    Args:
        status: as that of `os.waitpid`.
    """
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (None, -code)


def _no_op(number: int, frame: object) -> None:
    """Handle a signal by waking the loop."""
