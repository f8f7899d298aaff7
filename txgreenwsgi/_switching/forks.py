"""The child of a fork: it leaves the parent's reactor, signal handlers and clients.

The child has a copy of the reactor, which shares descriptors with the parent's: its
epoll object, its wakers and the connections. So no reactor runs in the child, and the
code that forked runs to its end and exits the process (`end_child`).

This file knows processes and signals. It must never switch.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Forked", "call_or_end_child", "end_child"]

P = ParamSpec("P")
T = TypeVar("T")
_log = Logger()


class Forked(RuntimeError):
    """The child of a fork uses an object of the parent, such as a connection."""


def end_child(error: BaseException | None) -> NoReturn:
    """Exit the child of a fork whose function has ended. Call in the child.

    As the interpreter does at the end of a program, but without exit handlers, which
    belong to the parent. The traceback goes to the log.

    Args:
        error: the exception that ended the function; None if it returned.
    """
    status = 0
    try:
        if isinstance(error, SystemExit):
            code = error.code
            if isinstance(code, int):
                status = code
            elif code is not None:
                status = 1
                print(code, file=sys.stderr)
        elif error is not None and not isinstance(error, Forked):
            status = 1
            _log.failure(
                "the child {pid} of a fork failed",
                failure=Failure(error),
                pid=os.getpid(),
            )
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status & 0xFF)


def call_or_end_child(
    function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call `function`; in the child of a fork that it makes, exit when it has ended.

    For calls that a loop in a thread makes: the child must not continue the loop.
    """
    process = os.getpid()
    try:
        result = function(*args, **kwargs)
    except BaseException as error:
        if os.getpid() != process:
            end_child(error)
        raise
    if os.getpid() != process:
        end_child(None)
    return result


def _reset_signals() -> None:
    """Undo the signal handling of the parent's reactor. Called in the child.

    Its handlers would make the child immune to SIGTERM, by which
    `multiprocessing.Pool` ends its workers.
    """
    for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGCHLD", None)):
        if number is None:
            continue
        handler = signal.getsignal(number)
        module = getattr(handler, "__module__", None) or ""
        if callable(handler) and module.startswith(("twisted.", "txgreenwsgi.")):
            default = (
                signal.default_int_handler
                if number == signal.SIGINT
                else signal.SIG_DFL
            )
            signal.signal(number, default)
            if number not in (signal.SIGTERM, signal.SIGINT):
                # Twisted's handler of SIGCHLD came with a waker.
                signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_signals)
