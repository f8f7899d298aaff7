"""A new process whenever a file changes: who starts it, and who in it looks.

The process that was started by hand keeps starting another, which serves, until
that ends by another status than `AGAIN`. In the one that serves, Django's own
reloader looks at the files of what is imported, in a thread.

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

from .launch import AGAIN, mark_as_watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

__all__ = ["call_on_change", "keep_running"]

#: A first look at the files, on a disk that is slow.
FIRST_LOOK_SECONDS = 10.0


def _at_the_terminal() -> bool:
    """Does Ctrl-C reach all of our processes by itself?"""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def keep_running(words: Sequence[str]) -> int:
    """Run a command again and again, while it asks for that; its last status.

    SIGTERM and SIGINT are handed on to it, and end this when it has ended.
    """
    child: subprocess.Popen[bytes] | None = None
    stopping = False

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if child is not None and not (number == signal.SIGINT and _at_the_terminal()):
            child.send_signal(number)

    before = {
        number: signal.signal(number, hand_on)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        while True:
            child = subprocess.Popen(words, env=mark_as_watched(dict(os.environ)))
            if stopping:  # it came before there was a child to hand it to
                child.terminate()
            status = child.wait()
            if status != AGAIN or stopping:
                return 128 - status if status < 0 else status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Reloader(autoreload.StatReloader):
    """Django's, which tells when it knows what there is.

    Attributes:
        looked: set when it has looked at all files for the first time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Event()

    def snapshot_files(self) -> Iterator[tuple[Any, float]]:
        """Each file, and when it was changed."""
        yield from super().snapshot_files()
        self.looked.set()


def call_on_change(function: Callable[[], object]) -> None:
    """Call `function`, in a thread, when a file of what is imported has changed.

    Returns when no change that comes from now on can be missed. Blocks.
    """
    reloader: Any = autoreload.get_reloader()
    if type(reloader) is autoreload.StatReloader:
        reloader = _Reloader()

    def look() -> None:
        try:
            # The main thread lives as long as somebody is to be told.
            reloader.run(threading.main_thread())
        except SystemExit:  # Django's word for it
            function()
        except Exception:
            sys.excepthook(*sys.exc_info())

    threading.Thread(target=look, name="rungreen watches files", daemon=True).start()
    if isinstance(reloader, _Reloader):
        reloader.looked.wait(FIRST_LOOK_SECONDS)
