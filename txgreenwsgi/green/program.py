"""A whole blocking program, run in one task under the reactor.

That task stands for the main thread: it has the main thread's ident, its
thread-locals, and is interrupted by what a signal's handler raises. To read its
standard input parks it. It knows the reactor. It must never know the program.
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
from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching.greenlets import Task, hub_of

from . import _thread
from ._pipes import PipeFile
from ._place import set_main_task
from .signal import redirect_default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["run"]


def run(main: Callable[..., object], *args: Any) -> int:
    """Run `main(*args)`, with the reactor turning beneath it; the exit status.

    Call from the main thread, outside tasks, once in a process.
    """
    from twisted.internet import reactor

    turning: Any = reactor
    status = 0
    real: list[Any] = []

    process = os.getpid()

    def run_main() -> None:
        nonlocal status
        try:
            status = _run(main, args)
            if os.getpid() != process:
                _end_child(status)
            # Wait for its threads, as the interpreter would.
            real.extend(_thread.set_real_threads_aside(vars(threading)))
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
        # Ctrl-C is the program's affair, as are all signals that it handles.
        turning.run(installSignalHandlers=False)
    set_main_task(None)
    _thread.join_real_threads(real)
    return status


@contextmanager
def _green_stdin() -> Iterator[None]:
    """While this lasts `input()` and `sys.stdin` park, if they could wait at all.

    On a terminal it is a duplicate of the descriptor that is read: from the
    original `input()` would read by C code that waits by itself. What that code
    would offer, a history and its own line editing, is lost.
    """
    was: Any = sys.stdin
    try:
        number = was.fileno()
        kind = os.fstat(number).st_mode
    except (AttributeError, OSError, ValueError):
        yield  # there is none, or something else is in its place
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
    """End the child of a fork, made by the program, as the interpreter would.

    Not by the reactor: its descriptors, and the other tasks, are the parent's.
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
