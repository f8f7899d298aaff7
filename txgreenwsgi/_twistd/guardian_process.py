"""The guardian process: it kills a server that does not end after a signal.

    python -I -S guardian_process.py PID DRAIN SECONDS SECONDS_AFTER_SECOND STACK_SIGNAL
        STACKS NUMBER...

It runs in its own session and is no child of the server, which might wait for all its
children. Descriptor 1 is the socket to which the server's C signal handler writes the
number of each signal, and from which the server itself reads: here they are only peeked
at. On standard input the server passes on what it has read. The first signal starts the
countdown. When the server has ended, so does this process.

This file is a program of the standard library alone, to stay small. It must never
import the server.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from _socket import MSG_PEEK, socket  # `socket` needs a megabyte more

#: Maximum length of the message, which must not block: a pipe that is ready to be
#: written to accepts as much.
MESSAGE_BYTES = getattr(select, "PIPE_BUF", 512)
#: Maximum time between two checks of the server.
_CHECK_SECONDS = 60.0
#: Time between two looks at signals that the server has not read.
_PEEK_SECONDS = 0.1
#: Time for the server to write its stack.
_STACK_SECONDS = 1.0
#: Difference between the ends of the drain in the two processes. In doubt, the server
#: gets the longer time.
_DRAIN_MARGIN_SECONDS = 1.0
#: Further signals do not move the deadline.
_MAX_SIGNALS = 3


def main(
    server: int,
    drain_seconds: float,
    seconds: float,
    seconds_again: float,
    stack_signal: int,
    stacks_path: str,
    numbers: bytes,
) -> None:
    """Watch the server until it ends.

    Args:
        server: its process id.
        drain_seconds: the time from the first signal in which the server drains,
            unless a second one ends it.
        seconds: the time from then until it is killed.
        seconds_again: the time from a signal after the drain.
        stack_signal: the signal at which the server writes its stack.
        stacks_path: the log to append a message to; "" for standard error.
        numbers: the signals that end the server.
    """
    ended = _open_pidfd(server)
    if os.getppid() != server:
        return
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    noted = socket(fileno=1)
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(1, select.POLLIN)
    if ended is not None:
        poller.register(ended, select.POLLIN)
    passed_on = 0
    times: list[float] = []
    while True:
        limit = deadline(times, drain_seconds, seconds, seconds_again)
        left = limit - time.monotonic()
        if left <= 0:
            break
        ready = [fd for fd, _ in poller.poll(1000 * min(left + 0.01, _CHECK_SECONDS))]
        if ended in ready:
            return
        # Before the look at the socket: a signal that moves from there to here in the
        # meantime is missed this time, and not counted twice.
        if 0 in ready:
            received = os.read(0, 65536)
            if not received:
                return
            passed_on += count(received, numbers)
        signals = passed_on + count(_peek(noted), numbers)
        # Signals that the server has read and not passed on had another handler.
        del times[signals:]
        while len(times) < min(signals, _MAX_SIGNALS):
            times.append(time.monotonic())
        if 1 in ready:
            time.sleep(_PEEK_SECONDS)
    stack = _stack(server, ended, stack_signal)
    if _send(server, ended, signal.SIGKILL):
        _report(
            b"txgreenwsgi: process %d did not end in time after a signal and was "
            b"killed: C code was blocked and kept Python from running. Its stack:\n%s"
            % (server, stack),
            stacks_path,
        )


def deadline(
    times: list[float], drain_seconds: float, seconds: float, seconds_again: float
) -> float:
    """Return the time at which the server is killed; infinity before a signal.

    Args:
        times: those of the signals so far.
        drain_seconds: see `main`, also for the others.
        seconds: the time from the end of the drain.
        seconds_again: the time from a signal after the drain.
    """
    limit = float("inf")
    for index, received in enumerate(times):
        if index == 0:
            allowed = drain_seconds + seconds
        elif (
            index == 1
            and drain_seconds
            and received < times[0] + drain_seconds + _DRAIN_MARGIN_SECONDS
        ):
            allowed = seconds
        else:
            allowed = seconds_again
        limit = min(limit, received + allowed)
    return limit


def count(received: bytes, numbers: bytes) -> int:
    """Return how many of the received bytes are in `numbers`."""
    return sum(byte in numbers for byte in received)


def _peek(noted: socket) -> bytes:
    try:
        return noted.recv(65536, MSG_PEEK)
    except BlockingIOError:
        return b""


def _stack(server: int, ended: int | None, stack_signal: int) -> bytes:
    """Let the server write its stack, and return it."""
    stack = b""
    if _send(server, ended, stack_signal):
        poller = select.poll()
        poller.register(0, select.POLLIN)
        until = time.monotonic() + _STACK_SECONDS
        # The end of the stack has no mark, so nothing more for a moment is the end.
        while (left := until - time.monotonic()) > 0 and poller.poll(
            1000 * (min(left, _PEEK_SECONDS) if stack else left)
        ):
            received = os.read(0, 65536)
            if not received:
                break
            stack += received
    return stack


def _open_pidfd(server: int) -> int | None:
    """Return a descriptor that is readable once the server has ended.

    None if the system has no such descriptors: then its end closes the pipe.
    """
    try:
        return os.pidfd_open(server)
    except (AttributeError, OSError):
        return None


def _send(server: int, ended: int | None, number: int) -> bool:
    """Send a signal to the server; return False if it has ended."""
    try:
        if ended is None:
            os.kill(server, number)
        else:
            signal.pidfd_send_signal(ended, number)
    except OSError:
        return False
    return True


def _report(message: bytes, path: str) -> None:
    """Write a message to the log, without blocking."""
    fd = 2
    if path:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        try:
            fd = os.open(path, flags, 0o644)
        except OSError:
            return
    if select.select([], [fd], [], 0)[1]:
        os.write(fd, message[:MESSAGE_BYTES])


if __name__ == "__main__":
    drain, until_kill, again = map(float, sys.argv[2:5])
    main(
        int(sys.argv[1]),
        drain,
        until_kill,
        again,
        int(sys.argv[5]),
        sys.argv[6],
        bytes(map(int, sys.argv[7:])),
    )
