"""SIGUSR2: a new master takes the place of this one.

The command is executed anew, with the new version of the server, and gets the sockets.
If the new master ends before its workers are ready, this one goes on.

It knows processes. It must never know options.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from .handover import variables
from .link import Link
from .messages import close_descriptors
from .process import as_patched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from .messages import Message
    from .sockets import ListeningSockets

__all__ = ["Place", "Succession"]

_log = Logger()

_FD: Final = 3

#: Time for a new master to end after SIGTERM.
_KILL_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Place:
    """The place of a master, which its successor takes.

    Attributes:
        directory: the working directory of its start; "" for the current one.
        log_path: its log as a daemon; "" if there is none.
        pidfile: the path of its pidfile; "" if there is none.
        pidfile_fd: a descriptor of that file; -1 if there is none.
    """

    directory: str
    log_path: str
    pidfile: str
    pidfile_fd: int


class Succession:
    """One attempt to replace this master.

    Call from the reactor greenlet.

    Args:
        reactor: the installed reactor.
        ready: called with the pid of the new master when its workers are ready.
        failed: called when the new master has ended before.
    """

    def __init__(
        self,
        reactor: Any,
        ready: Callable[[int], object],
        failed: Callable[[], object],
    ) -> None:
        self._reactor = reactor
        self._ready = ready
        self._failed = failed
        self._link: Link | None = None
        self._timeout: IDelayedCall | None = None
        self._is_ready = False
        self._ended = False
        self.pid = 0

    def begin(
        self,
        place: Place,
        sockets: ListeningSockets,
        environ: Mapping[str, str],
        seconds: float,
    ) -> None:
        """Start the new master.

        Args:
            place: what it takes over.
            sockets: handed over.
            environ: its environment.
            seconds: time for its workers to be ready.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        try:
            transport = self._reactor.spawnProcess(
                _Successor(self._process_ended),
                sys.executable,
                _command(),
                env=variables(dict(environ), _FD),
                # Removed by a deployment, it would end the new process.
                path=place.directory if os.path.isdir(place.directory) else None,
                childFDs={0: 0, 1: 1, 2: 2, _FD: theirs.fileno()},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = transport.pid
        self._link = Link(ours, self._reactor, self._received, _no_op)
        sockets.send(self._link.send)
        self._link.send(
            {
                "do": "begin",
                "pid": os.getpid(),
                "log": place.log_path,
                "pidfile": place.pidfile,
            },
            [] if place.pidfile_fd < 0 else [place.pidfile_fd],
        )
        self._timeout = self._reactor.callLater(seconds, self._timed_out, seconds)

    def end(self) -> None:
        """End the new master, unless it is ready. A no-op if it has ended."""
        if self._is_ready or self._ended:
            return
        self._kill(signal.SIGTERM)
        self._timeout = self._reactor.callLater(
            _KILL_SECONDS, self._kill, signal.SIGKILL
        )

    def _timed_out(self, seconds: float) -> None:
        _log.error(
            "new master {pid} is not ready after {s:g} s", pid=self.pid, s=seconds
        )
        self.end()

    def _kill(self, number: int) -> None:
        self._cancel_timeout()
        if not self._ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _cancel_timeout(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None

    def _received(self, message: Message, descriptors: list[int]) -> None:
        close_descriptors(descriptors)
        if message["event"] == "ready" and not self._is_ready:
            self._is_ready = True
            self._cancel_timeout()
            self._ready(self.pid)

    def _process_ended(self, reason: Failure) -> None:
        self._ended = True
        self._cancel_timeout()
        if self._link is not None:
            self._link.close()
        if not self._is_ready:
            _log.error(
                "new master {pid} has ended ({reason}); this one goes on",
                pid=self.pid,
                reason=reason.getErrorMessage(),
            )
            self._failed()


class _Successor(ProcessProtocol):
    def __init__(self, ended: Callable[[Failure], object]) -> None:
        self._ended = ended

    def processEnded(self, reason: Failure) -> None:
        self._ended(reason)


def _command() -> list[str]:
    """Return the command line with which this process was started."""
    return as_patched([sys.executable, *sys.orig_argv[1:]])


def _no_op() -> None:
    """No-op callback."""
