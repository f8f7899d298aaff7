"""The guardian: a small process that kills this one if C code blocks it for ever.

While a C function runs in the main thread, Python calls no signal handler; if it holds
the interpreter lock, no Python code runs at all. So `faulthandler` writes the stack to
a pipe in the C signal handler, and the process at its other end starts the countdown.

It knows processes and signals. It must never know the reactor.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from twisted.logger import Logger

from txgreenwsgi._parking.real_threads import start_real_thread

from . import guardian_process

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["start_guardian"]

_log = Logger()

# The write ends of the pipes, which children of a fork close.
_pipes: list[int] = []


def start_guardian(
    numbers: Iterable[int],
    drain_seconds: float,
    seconds: float,
    seconds_again: float,
    stacks_path: str,
) -> None:
    """Start the process; it kills this one if it does not end after a signal.

    Call from the main thread, after the handlers of the signals were set: setting a
    handler later takes the signal away from the guardian. If the process cannot be
    started, a warning is logged.

    Args:
        numbers: the signals that end this process.
        drain_seconds: the time from the first signal in which the server drains,
            unless a second one ends it.
        seconds: the time from then until it is killed.
        seconds_again: the time from a signal after the drain.
        stacks_path: the log for the guardian's message; "" for standard error.
    """
    if not hasattr(faulthandler, "register"):
        return  # Windows
    reading, writing = os.pipe()
    # faulthandler must not block if the guardian was killed or stopped.
    os.set_blocking(writing, False)
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                guardian_process.__file__,
                str(os.getpid()),
                str(drain_seconds),
                str(seconds),
                str(seconds_again),
                stacks_path,
            ],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        os.close(writing)
        _log.warn(
            "watchdog: cannot start the guardian process ({error}); a signal cannot "
            "end the server while C code blocks it",
            error=error,
        )
        return
    finally:
        os.close(reading)
    _pipes.append(writing)
    # The guardian is its child. In a thread, because its start takes some time.
    start_real_thread(process.wait, ())
    atexit.register(_end_start, process)
    for number in numbers:
        faulthandler.register(number, writing, all_threads=False, chain=True)


def _end_start(process: subprocess.Popen[bytes]) -> None:
    """End a guardian that has not started yet; later it ends by itself."""
    process.kill()
    process.wait()


def _close_pipes() -> None:
    """Leave the guardian to the parent. Called in the child of a fork."""
    while _pipes:
        os.close(_pipes.pop())


if hasattr(os, "register_at_fork"):
    # After `_switching.forks` has taken the signals from faulthandler.
    os.register_at_fork(after_in_child=_close_pipes)
