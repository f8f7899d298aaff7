"""Errors and log of a start, for every service of the command.

It knows the exit of the process. It must never know what starts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from txgreenwsgi._server.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from txgreenwsgi._twistd.options import Options

__all__ = ["exit_with", "log_path", "without_traceback"]


def log_path(options: Options) -> str:
    """Return the log file of twistd as a daemon; "" if there is none.

    Call before twistd changes its working directory.
    """
    if options.predecessor is not None:
        return options.predecessor.log_path
    parent: Any = options.parent or {}
    if parent.get("nodaemon", True) or parent.get("debug") or parent.get("syslog"):
        return ""
    return os.path.abspath(parent.get("logfile") or "twistd.log")


@contextlib.contextmanager
def without_traceback() -> Iterator[None]:
    """Let a `StartError` end the process with its message and without a traceback.

    In twistd and twist, an exception raised by a starting service ends the process
    with status 1 and a traceback. The traceback helps if the application's code
    failed, but not if an option is wrong. Only the hook that prints tracebacks can
    suppress it: a SystemExit would leave twistd's pidfile behind.
    """
    try:
        yield
    except StartError as error:
        # If a module exits at import, the traceback shows the place.
        if not isinstance(error.__cause__, SystemExit):
            sys.excepthook = _print_message
        raise


def _print_message(
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    if isinstance(error, StartError):
        print(f"txgreenwsgi cannot start: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def exit_with(status: int) -> None:
    """End the process with a status other than 0. For an exit handler."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)
