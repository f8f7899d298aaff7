"""Errors and log of a start, for every service of the command.

It knows the exit of the process. It must never know what starts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, cast

from twisted.logger import globalLogPublisher

from txgreenwsgi._server.errors import StartError
from txgreenwsgi._wsgi.log_descriptor import append_stderr_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from twisted.logger import ILogObserver

    from txgreenwsgi._twistd.notify import Notifier
    from txgreenwsgi._twistd.options import Options
    from txgreenwsgi._twistd.signals import OperatorSignals
    from txgreenwsgi._twistd.watchdog import Watchdog

__all__ = [
    "exit_with",
    "installed_reactor",
    "log_path",
    "prepare_process",
    "without_traceback",
]


def installed_reactor(reactor: Any) -> Any:
    """Return a reactor; if it is None, the one that is installed.

    Call when the service starts: until then, twistd has not chosen it.
    """
    if reactor is None:
        from twisted.internet import reactor
    return reactor


def prepare_process(
    reactor: Any,
    stacks_path: str,
    watchdog: Watchdog,
    notifier: Notifier,
    signals: OperatorSignals,
    *,
    reopen_stderr: bool = False,
) -> None:
    """Prepare log, signals and notifications of a process that begins to serve.

    Call while it may still open its log, before twistd changes the user.

    Args:
        reactor: the installed reactor.
        stacks_path: the log of twistd as a daemon; "" if there is none.
        watchdog: of this process.
        notifier: of this process.
        signals: of this process.
        reopen_stderr: whether standard error goes to that log even if it is no null
            device.
    """
    if stacks_path:
        # The watchdog logs why it cannot be opened.
        with contextlib.suppress(OSError):
            append_stderr_to(stacks_path, always=reopen_stderr)
    watchdog.prepare()
    globalLogPublisher.addObserver(cast("ILogObserver", watchdog.observe))
    notifier.main_process()
    signals.install(reactor)


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
