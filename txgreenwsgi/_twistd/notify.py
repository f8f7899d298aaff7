"""Notifications to systemd: readiness, reload, shutdown, status and watchdog.

The protocol of sd_notify(3): lines of NAME=VALUE in one datagram, to the UNIX socket
that NOTIFY_SOCKET names. Without that variable, everything here is a no-op.

The variables are taken out of the environment, so that no child process of the
application notifies in the name of the service. The socket is connected when the
object is made, before twistd changes its root directory or user.

It knows the protocol and the reactor's clock. It must never know the server.
"""

from __future__ import annotations

import errno
import os
import re
import time
from _socket import AF_UNIX, SOCK_DGRAM
from _socket import socket as real_socket
from collections import deque
from typing import TYPE_CHECKING, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["STATUS_SECONDS", "Notifier"]

_log = Logger()

#: Minimum time between two changes of the status.
STATUS_SECONDS: Final = 10.0
#: Time after which a message is repeated that systemd has not had room for.
RETRY_SECONDS: Final = 0.1
#: Maximum number of messages that wait for room.
_MAX_WAITING: Final = 100

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG_USEC: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"
_MICROSECONDS: Final = 1_000_000
_NUMBER: Final = re.compile(r"[0-9]{1,19}\Z")
_FULL: Final = frozenset({errno.EAGAIN, errno.ENOBUFS})


class Notifier:
    """The notifications of one process, or of the master of several.

    Falsy if there is nothing to notify; all methods are no-ops then. No method blocks
    or raises.

    Args:
        address: the value of NOTIFY_SOCKET: a path, or "@" and a name in the abstract
            namespace; "" for no notifications.
        watchdog_seconds: the time after which systemd ends a service that has not
            pinged; 0 for no watchdog.
    """

    def __init__(self, address: str, watchdog_seconds: float = 0.0) -> None:
        self._address = address
        self._watchdog_seconds = watchdog_seconds
        self._socket: real_socket | None = None
        self._failure_is_logged = False
        self._reactor: IReactorTime | None = None
        self._retry: IDelayedCall | None = None
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)
        self._loops: list[LoopingCall] = []
        self._pid = os.getpid()
        self._stopping = False
        self._status = ""
        if address:
            self._connect()

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Return the notifier for an environment, and remove its variables.

        Call before twistd forks.
        """
        address = environ.pop(_SOCKET, "")
        microseconds = environ.pop(_WATCHDOG_USEC, "")
        pid = environ.pop(_WATCHDOG_PID, "")
        watched = not pid or pid == str(os.getpid())
        if not address or not watched or not _NUMBER.match(microseconds):
            microseconds = "0"
        return cls(address, int(microseconds) / _MICROSECONDS)

    def __bool__(self) -> bool:
        return bool(self._address)

    def environ(self) -> dict[str, str]:
        """Return the variables for a process that replaces this one by exec()."""
        if not self._address:
            return {}
        variables = {_SOCKET: self._address}
        if self._watchdog_seconds:
            variables[_WATCHDOG_USEC] = str(int(self._watchdog_seconds * _MICROSECONDS))
            variables[_WATCHDOG_PID] = str(os.getpid())
        return variables

    # The state of the service. Called in the reactor's thread.

    def main_process(self) -> None:
        """Make this process the main one, if it is not the process that was started.

        Such as the daemon that twistd has forked. systemd accepts this from another
        process than the main one only with NotifyAccess=all.
        """
        if os.getpid() != self._pid:
            self.send_main_pid(os.getpid())

    def send_main_pid(self, pid: int) -> None:
        """Name the main process of the service: MAINPID."""
        self._send(f"MAINPID={pid}")

    def ready(self) -> None:
        """Report the end of the start, or of a reload: READY.

        Once the service is stopping this is a no-op.
        """
        if not self._stopping:
            self._send("READY=1")

    def reloading(self) -> None:
        """Report the start of a reload: RELOADING. `ready` reports its end."""
        if not self._stopping:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self, seconds: float) -> None:
        """Report the start of the shutdown: STOPPING. Only the first call counts.

        Args:
            seconds: the time that it may take. systemd waits at least as long
                (EXTEND_TIMEOUT_USEC), also if TimeoutStopSec= is shorter.
        """
        if not self._stopping:
            self._stopping = True
            extension = min(int(seconds * _MICROSECONDS), 2**63 - 1)
            self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={extension}")

    def status(self, text: str) -> None:
        """Describe the state of the service: STATUS. A no-op if it is unchanged."""
        text = " ".join(text.split())
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    # What repeats.

    def start(
        self,
        reactor: IReactorTime,
        status: Callable[[], str] | None = None,
        is_well: Callable[[], bool] | None = None,
    ) -> None:
        """Repeat the status and the watchdog's pings until `stop`.

        The first ones are sent at once.

        Args:
            reactor: its clock. While the reactor is blocked there are no pings.
            status: returns the text for `status`. Called every `STATUS_SECONDS`.
            is_well: returns False to omit a ping. Three of them in a row let systemd
                end the service.
        """
        self.stop()
        if not self._address:
            return
        self._reactor = reactor
        self._stopping = False
        self._send_waiting()
        if status is not None:
            self._repeat(STATUS_SECONDS, lambda: self.status(status()))
        if self._watchdog_seconds:

            def ping() -> None:
                if is_well is None or is_well():
                    self._send("WATCHDOG=1", must_arrive=False)

            self._repeat(self._watchdog_seconds / 3, ping)

    def _repeat(self, seconds: float, function: Callable[[], None]) -> None:
        assert self._reactor is not None
        loop = LoopingCall(function)
        loop.clock = self._reactor
        self._loops.append(loop)
        loop.start(seconds).addErrback(
            lambda failure: _log.failure("notifications end", failure)
        )

    def stop(self) -> None:
        """End what `start` has begun."""
        loops, self._loops = self._loops, []
        for loop in loops:
            if loop.running:
                loop.stop()
        retry, self._retry = self._retry, None
        if retry is not None and retry.active():
            retry.cancel()
        self._reactor = None

    def close(self) -> None:
        """Stop, drop messages that wait for room, and close the socket."""
        self.stop()
        self._waiting.clear()
        self._address = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # Sending.

    def _connect(self) -> bool:
        """Connect the socket; log the first failure."""
        address = self._address
        made = real_socket(AF_UNIX, SOCK_DGRAM)
        try:
            made.setblocking(False)
            if address[0] not in "/@":
                raise OSError(errno.EAFNOSUPPORT, "neither a path nor an abstract name")
            made.connect("\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            made.close()
            self._log_failure(error)
            return False
        self._socket = made
        return True

    def _log_failure(self, error: OSError) -> None:
        if not self._failure_is_logged:
            self._failure_is_logged = True
            _log.warn(
                "cannot notify the service manager at NOTIFY_SOCKET={address!r} "
                "({error}); a unit of Type=notify does not become active. Logged once",
                address=self._address,
                error=error,
            )

    def _send(self, message: str, must_arrive: bool = True) -> None:
        """Send a message, now or, if it must arrive, when there is room."""
        if not self._address:
            return
        data = message.encode("utf-8", "replace")
        if self._waiting or not self._send_now(data):
            if must_arrive:
                self._waiting.append(data)
            self._retry_later()

    def _send_now(self, data: bytes) -> bool:
        """Send a message; return False if there is no room for it."""
        for _attempt in range(2):
            if self._socket is None and not self._connect():
                break
            assert self._socket is not None
            try:
                self._socket.send(data)
                break
            except OSError as error:
                if error.errno in _FULL:
                    return False
                # systemd may have made a new socket at the same address.
                self._socket.close()
                self._socket = None
                failure = error
        else:
            self._log_failure(failure)
        return True

    def _retry_later(self) -> None:
        if self._waiting and self._retry is None and self._reactor is not None:
            self._retry = self._reactor.callLater(RETRY_SECONDS, self._send_waiting)

    def _send_waiting(self) -> None:
        self._retry = None
        while self._waiting and self._send_now(self._waiting[0]):
            self._waiting.popleft()
        self._retry_later()
