"""The guardian process: it kills a server that does not end after a signal.

    python -I -S guardian_process.py PID DRAIN SECONDS SECONDS_AFTER_SECOND STACKS

It runs in its own session and is no child of the server, which might wait for all its
children. On standard input the server's C signal handler writes a stack for each
signal; the first one starts the countdown. When the server has ended, so does this
process.

This file is a program of the standard library alone, to stay small. It must never
import the server.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

#: The end of the first line that `faulthandler` writes for each signal.
MARK = b"(most recent call first)"
#: Maximum length of the message, which must not block: a pipe that is ready to be
#: written to accepts as much.
MESSAGE_BYTES = getattr(select, "PIPE_BUF", 512)
#: Maximum time between two checks of the server.
_CHECK_SECONDS = 60.0
#: Difference between the ends of the drain in the two processes. In doubt, the server
#: gets the longer time.
_DRAIN_MARGIN_SECONDS = 1.0


def main(
    server: int,
    drain_seconds: float,
    seconds: float,
    seconds_again: float,
    stacks_path: str,
) -> None:
    """Watch the server until it ends.

    Args:
        server: its process id.
        drain_seconds: the time from the first signal in which the server drains,
            unless a second one ends it.
        seconds: the time from then until it is killed.
        seconds_again: the time from a signal after the drain.
        stacks_path: the log to append a message to; "" for standard error.
    """
    ended = _open_pidfd(server)
    if os.getppid() != server:
        return
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    poller = select.poll()
    poller.register(0, select.POLLIN)
    if ended is not None:
        poller.register(ended, select.POLLIN)
    stacks = b""
    drained = 0.0
    deadline = float("inf")
    signals = 0
    while (left := deadline - time.monotonic()) > 0:
        ready = [fd for fd, _ in poller.poll(1000 * min(left + 0.01, _CHECK_SECONDS))]
        if ended in ready:
            return
        if 0 in ready:
            received = os.read(0, 65536)
            if not received:
                return
            stacks += received
            count = stacks.count(MARK)
            now = time.monotonic()
            for earlier in range(signals, count):
                if earlier == 0:
                    limit = drain_seconds + seconds
                    drained = now + drain_seconds + _DRAIN_MARGIN_SECONDS
                elif earlier == 1 and drain_seconds and now < drained:
                    limit = seconds
                else:
                    limit = seconds_again
                deadline = min(deadline, now + limit)
            # Further signals neither move the deadline nor fill the memory.
            signals = count
            if count > 3:
                poller.unregister(0)
    if _kill(server, ended):
        _report(
            b"txgreenwsgi: process %d did not end in time after a signal and was "
            b"killed: C code was blocked and kept Python from running. The stack when "
            b"the signal arrived:\n%s" % (server, stacks),
            stacks_path,
        )


def _open_pidfd(server: int) -> int | None:
    """Return a descriptor that is readable once the server has ended.

    None if the system has no such descriptors: then its end closes the pipe.
    """
    try:
        return os.pidfd_open(server)
    except (AttributeError, OSError):
        return None


def _kill(server: int, ended: int | None) -> bool:
    """Kill the server; return False if it has ended."""
    try:
        if ended is None:
            os.kill(server, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(ended, signal.SIGKILL)
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
    main(int(sys.argv[1]), drain, until_kill, again, sys.argv[5])
