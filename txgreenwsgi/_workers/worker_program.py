"""The program that a worker process runs.

    python worker_program.py

It reads the first line of the link, takes the module search path from it, and calls
the function that it names. Until then it uses the standard library alone: the directory
of this file, which Python puts on the search path, must not be searched.
"""

from __future__ import annotations

import sys

sys.path[:] = [path for path in sys.path if path != __file__.rpartition("/")[0]]

import ctypes  # noqa: E402
import faulthandler  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402

LINK_FD = 3
STACKS_FD = 6

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the worker."""
    # The terminal sends these to all processes in the foreground: the master decides.
    # A function, because programs that the application starts inherit SIG_IGN.
    for name in ("SIGINT", "SIGQUIT", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda number, frame: None)
    _end_with_master()
    line = bytearray()
    # One byte at a time: the rest may carry descriptors.
    while not line.endswith(b"\n"):
        data = os.read(LINK_FD, 1)
        if not data:
            sys.exit(1)  # the master has ended
        line += data
    boot = json.loads(line)
    # Now, because an import may hang.
    numbers = boot["stacks_signal"], boot["forced_stacks_signal"]
    handle_stacks_signals(*numbers)
    # The master has blocked them until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    sys.path[:] = boot["path"]
    module, _, name = boot["entry"].partition(":")
    getattr(importlib.import_module(module), name)(boot)


def handle_stacks_signals(number: int, forced: int) -> None:
    """Write the stacks of all threads to their file at two signals.

    Args:
        number: the signal for a process that runs Python code.
        forced: the signal for a process that C code blocks.
    """
    signal.signal(number, _write_stacks)
    faulthandler.register(forced, STACKS_FD, all_threads=True)


def _write_stacks(number: int, frame: object) -> None:
    # Holding the interpreter lock: no thread changes its frames.
    faulthandler.dump_traceback(STACKS_FD, all_threads=True)


def _end_with_master() -> None:
    """Let the kernel send SIGTERM when the master has ended; Linux only.

    The end of the link is not noticed while code blocks the reactor. The guardian
    notices the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    main()
