"""Autoreload: restart the serving process when a file changes.

The process started by the user is the watcher: it starts a child process that serves,
and restarts it whenever it exits with `RESTART_STATUS`. In the child, Django's
reloader polls the files of imported modules, in a thread.

It knows processes and Django's reloader. It must never know the server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from django.utils import autoreload

from .launch import RESTART_STATUS, mark_as_watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

__all__ = ["call_on_change", "keep_running"]

#: Time limit for the first scan of the files, on a slow disk.
FIRST_SCAN_SECONDS = 10.0


def _is_foreground() -> bool:
    """Return whether the terminal sends Ctrl-C to all processes of the group."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def keep_running(words: Sequence[str]) -> int:
    """Run a command, restart it at its request, and return its last exit status.

    Forwards SIGTERM and SIGINT to the command and then does not restart it.

    Args:
        words: the command line.
    """
    child: subprocess.Popen[bytes] | None = None
    stopping = False

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if child is not None and not (number == signal.SIGINT and _is_foreground()):
            child.send_signal(number)

    before = {
        number: signal.signal(number, forward)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        while True:
            child = subprocess.Popen(words, env=mark_as_watched(dict(os.environ)))
            if stopping:  # the signal arrived before the child was started
                child.terminate()
            status = child.wait()
            if status != RESTART_STATUS or stopping:
                return 128 - status if status < 0 else status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Reloader(autoreload.StatReloader):
    """Django's reloader, with an event for its first scan.

    Attributes:
        scanned: set after the first scan of all files.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scanned = threading.Event()

    def snapshot_files(self) -> Iterator[tuple[object, float]]:
        """Yield each file and its modification time."""
        yield from super().snapshot_files()
        self.scanned.set()


def call_on_change(function: Callable[[], object]) -> None:
    """Call `function` in a thread when the file of an imported module has changed.

    Blocks until the first scan is complete, so that no later change is missed.
    """
    reloader: Any = autoreload.get_reloader()
    if type(reloader) is autoreload.StatReloader:
        reloader = _Reloader()

    def watch() -> None:
        try:
            # The reloader runs while this thread is alive.
            reloader.run(threading.main_thread())
        except SystemExit:  # raised by Django when a file has changed
            function()
        except Exception:
            sys.excepthook(*sys.exc_info())

    threading.Thread(target=watch, name="rungreen watches files", daemon=True).start()
    if isinstance(reloader, _Reloader):
        reloader.scanned.wait(FIRST_SCAN_SECONDS)
