"""A whole blocking program in one task under the reactor.

The task stands for the main thread: it has the main thread's ident and thread-locals,
and exceptions of signal handlers are raised in it. Reading standard input parks it.
This file knows the reactor. It must never know the program.
"""

from __future__ import annotations

import atexit
import io
import os
import stat
import sys
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from txgreenwsgi._parking.waits import set_main_task
from txgreenwsgi._switching.greenlets import Task, hub_of

from . import thread as green_thread
from ._pipes import PipeFile
from .signal import redirect_default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.base import ReactorBase


__all__ = ["run"]


def run(main: Callable[..., object], *args: object) -> int:
    """Run `main(*args)` in a task of the reactor, and return the exit status.

    Call from the main thread, outside tasks, once per process.
    """
    from twisted.internet import reactor

    turning = cast("ReactorBase", reactor)
    status = 0
    real: list[object] = []

    process = os.getpid()

    def run_main() -> None:
        nonlocal status
        try:
            status = _run(main, args)
            if os.getpid() != process:
                _end_child(status)
            # Wait for its threads, as the interpreter does.
            real.extend(green_thread.set_real_threads_aside(vars(threading)))
            threading._shutdown()  # type: ignore[attr-defined]
        finally:
            turning.callLater(0, turning.stop)

    def begin() -> None:
        hub = hub_of(turning)
        task: Task[None] = Task(hub, run_main, name="main")
        set_main_task(task)
        hub.spawn(task)

    redirect_default()
    turning.callWhenRunning(begin)
    with _green_stdin():
        # The program handles Ctrl-C and all other signals.
        turning.run(installSignalHandlers=False)
    set_main_task(None)
    green_thread.join_real_threads(real)
    return status


@contextmanager
def _green_stdin() -> Iterator[None]:
    """Make `input()` and `sys.stdin` park during the block, if they can block.

    On a terminal, a duplicate of the descriptor is read, because `input()` reads the
    original with C code that blocks. Line editing and history, which are features of
    that code, are lost.
    """
    was: Any = sys.stdin
    try:
        number = was.fileno()
        kind = os.fstat(number).st_mode
    except (AttributeError, OSError, ValueError):
        yield  # no standard input, or an object without a descriptor
        return
    terminal = os.isatty(number)
    if not (terminal or stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        yield
        return
    raw = PipeFile(os.dup(number) if terminal else number, closefd=terminal)
    raw.name = was.name
    green = io.TextIOWrapper(
        io.BufferedReader(raw),
        encoding=was.encoding,
        errors=was.errors,
        line_buffering=was.line_buffering,
    )
    green.mode = was.mode  # type: ignore[misc]
    sys.stdin = green
    try:
        yield
    finally:
        if sys.stdin is green:
            sys.stdin = was
        green.close()


def _end_child(status: int) -> None:
    """Exit the child of a fork made by the program, as the interpreter does.

    The reactor must not do it: its descriptors and other tasks belong to the parent.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status & 0xFF)


def _run(main: Callable[..., object], args: tuple[Any, ...]) -> int:
    try:
        main(*args)
    except SystemExit as error:
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
