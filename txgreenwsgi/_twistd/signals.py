"""The signals of operators, besides SIGTERM and SIGINT.

gunicorn, nginx and uWSGI give them meanings, and scripts send them: logrotate SIGUSR1
or SIGHUP, deployments SIGHUP, SIGUSR2, SIGTTIN and SIGTTOU. By default they end or stop
the process. Here they do not:

- SIGUSR1 and SIGHUP reopen the logs. SIGHUP also reads the TLS certificates again;
  there is nothing else to reload in a single process. A master of workers gives SIGHUP
  and others a meaning (`actions`).
- SIGQUIT is SIGTERM.
- SIGUSR2, SIGTTIN and SIGTTOU are logged.

A signal that has a handler already, or is ignored (nohup), is left unchanged. The
handlers are installed before the application is imported, which may replace them.

It knows signals, the terminal and log files. It must never know the server.
"""

from __future__ import annotations

import inspect
import os
import signal
import stat
import termios
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.logger import Logger
from twisted.python.logfile import BaseLogFile

from txgreenwsgi._wsgi.log_descriptor import reopen_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from .notify import Notifier

    class _Reactor(Protocol):
        """The part of IReactorFromThreads that is used here."""

        def callFromThread(
            self, function: Callable[..., object], /, *args: object
        ) -> object:
            """Call a function on the next reactor turn."""


__all__ = ["OperatorSignals", "has_terminal", "rotated_by"]

_log = Logger()

_RELOAD: Final = "restart the process to load new code or another configuration"
_WORKERS: Final = "ignored: this process has no workers to replace or to scale"

# By name: SIGTTIN and others do not exist on every platform.
_NAMES: Final = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGTTIN", "SIGTTOU")
_OF_TERMINALS: Final = ("SIGTTIN", "SIGTTOU")


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal that is connected."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


class OperatorSignals:
    """The handlers of one process.

    Args:
        reopen: functions that reopen log files. They must not raise.
        actions: by name, functions that handle a signal instead; for a master.
        remedy: the remedy in warnings about signals without an effect.
        notifier: informed about SIGHUP, with which systemd reloads a unit of
            Type=notify-reload.
        read_again: functions that read files again at a SIGHUP. They must not raise.
    """

    def __init__(
        self,
        reopen: Iterable[Callable[[], object]] = (),
        actions: Mapping[str, Callable[[], object]] = MappingProxyType({}),
        remedy: str = _RELOAD,
        notifier: Notifier | None = None,
        read_again: Iterable[Callable[[], object]] = (),
    ) -> None:
        self._reopen = list(reopen)
        self._notifier = notifier
        self._actions = actions
        self._remedy = remedy
        self._read_again = list(read_again)
        self._reactor: _Reactor | None = None
        self._log_file: BaseLogFile | None = None
        self._log_mode: int | None = None
        self._has_terminal = False

    def install(self, reactor: _Reactor) -> None:
        """Handle the signals whose action is the default, and twistd's SIGUSR1.

        Call from the main thread, before the application is imported. Signals that
        arrive before the reactor runs are handled when it does.

        Args:
            reactor: calls the functions.
        """
        self._reactor = reactor
        self._has_terminal = has_terminal()
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is None:
                continue
            present = signal.getsignal(number)
            log_file = rotated_by(present)
            if log_file is not None:
                self._log_file = log_file
                with suppress(OSError):
                    self._log_mode = stat.S_IMODE(os.stat(log_file.path).st_mode)
            elif present is not signal.SIG_DFL:
                continue
            if (
                name in _OF_TERMINALS
                and self._has_terminal
                and not (name in self._actions and not _stops_writers())
            ):
                # The kernel sends them to a background process that uses its
                # terminal, and again when the call is repeated after a handler:
                # for ever. If they are ignored, the call fails or proceeds.
                signal.signal(number, signal.SIG_IGN)
            else:
                signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. It may interrupt any bytecode, so keep this minimal."""
        reactor = self._reactor
        assert reactor is not None
        if number == signal.SIGQUIT:
            self._stop(reactor)
        elif number == signal.SIGHUP and self._has_terminal and not has_terminal():
            # Closing its terminal ends a server that runs in the foreground.
            self._stop(reactor)
        else:
            reactor.callFromThread(self._handle, signal.Signals(number).name)

    @staticmethod
    def _stop(reactor: _Reactor) -> None:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # Its handler is installed when the reactor runs.
            reactor.callFromThread(os.kill, os.getpid(), signal.SIGTERM)
        else:
            # That handler also stops a blocked reactor.
            os.kill(os.getpid(), signal.SIGTERM)

    def _handle(self, name: str) -> None:
        action = self._actions.get(name)
        if action is not None:
            action()
        elif name == "SIGUSR1":
            self.reopen_logs()
            _log.info("SIGUSR1: reopened the logs")
        elif name == "SIGHUP":
            if self._notifier is not None:
                self._notifier.reloading()
            self.reopen_logs()
            done = "reopened the logs"
            if self._read_again:
                done += ", reading TLS certificates again"
            for read_again in self._read_again:
                read_again()
            _log.info("SIGHUP: {done}; {remedy}", done=done, remedy=self._remedy)
            if self._notifier is not None:
                self._notifier.ready()
        elif name == "SIGUSR2":
            _log.warn(
                "SIGUSR2 {reason}; {remedy}", reason=_WORKERS, remedy=self._remedy
            )
        else:
            _log.warn("{name} {reason}", name=name, reason=_WORKERS)

    def reopen_logs(self) -> None:
        """Reopen the log of twistd and the other logs."""
        if self._log_file is not None:
            _reopen_file(self._log_file, self._log_mode)
            reopen_log()
        for reopen in self._reopen:
            reopen()


def _stops_writers() -> bool:
    """Return whether the terminal stops background processes that write to it.

    Then the kernel sends SIGTTOU again and again while a handler is installed.
    """
    for fd in (1, 2):
        with suppress(termios.error, OSError):
            flags: int = termios.tcgetattr(fd)[3]
            return bool(flags & termios.TOSTOP)
    return False


def rotated_by(handler: Any) -> BaseLogFile | None:
    """Return the log file of twistd, if `handler` is twistd's for SIGUSR1.

    twistd's handler renames the file and opens a new one. Once logrotate has renamed
    it, the handler does nothing. The handler is the only reference to the file.
    """
    if not inspect.isfunction(handler):
        return None
    if handler.__module__ != "twisted.scripts._twistd_unix":
        return None
    log_file = inspect.getclosurevars(handler).nonlocals.get("logFile")
    return log_file if isinstance(log_file, BaseLogFile) else None


def _reopen_file(log_file: BaseLogFile, mode: int | None) -> None:
    """Reopen a log file, unless this user may not open the new one.

    Args:
        log_file: the log file.
        mode: that of a new file.
    """
    try:
        if os.path.exists(log_file.path):
            os.close(os.open(log_file.path, os.O_RDWR))
        elif not os.access(log_file.directory, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write to {log_file.directory}")
    except OSError as error:
        _log.error(
            "cannot reopen {path} ({error}); still writing to the old file",
            path=log_file.path,
            error=error,
        )
        return
    if log_file.defaultMode is None:
        log_file.defaultMode = mode
    log_file.reopen()
