"""The access log that an embedded server opens and closes itself.

It knows files and the shutdown of the reactor. It must never know when a server starts
or stops serving.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from twisted.internet.interfaces import IReactorCore

from txgreenwsgi.monitoring import AccessLog

from .errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi.monitoring import ExchangeRecord

__all__ = ["AccessLogFormat", "AccessLogTarget", "ServerAccessLog", "open_access_log"]

AccessLogTarget: TypeAlias = str | os.PathLike[str]
#: "combined", "common", "json", or a format with directives of Apache.
AccessLogFormat: TypeAlias = str


@contextmanager
def _as_start_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartError(
            f"the access log cannot be opened ({error}): give a file that this "
            "user may write to"
        ) from error


def open_access_log(log: AccessLog, clock: IReactorTime) -> None:
    """Open the file of `log`. Call from the reactor greenlet.

    Raises:
        StartError: the file cannot be opened.
    """
    with _as_start_error():
        log.open(clock)


class ServerAccessLog:
    """An access log whose file is open while a server serves.

    The constructor resolves a relative path and checks that the file can be opened, so
    that a mistake is reported at the start of the program. `open` creates the file,
    after a daemon has changed its user.

    Args:
        target: the path of a file to append to, or "-" for standard output.
        format_name: a name, or directives, as for `AccessLog`.

    Raises:
        ValueError: the format is unknown.
        StartError: the file cannot be opened for appending.
    """

    def __init__(self, target: AccessLogTarget, format_name: AccessLogFormat) -> None:
        self._log = AccessLog(os.fspath(target), format_name)
        with _as_start_error():
            self._log.prepare()
        self._is_open = False
        self._closes_with_reactor = False

    def observe(self, record: ExchangeRecord) -> None:
        """Record a finished exchange. Never parks or raises."""
        self._log.observe(record)

    def open(self, reactor: IReactorTime) -> None:
        """Open the file until `close`, or until the reactor has shut down.

        A no-op if the file is open. Call from the reactor greenlet.

        Raises:
            StartError: the file cannot be opened.
        """
        if self._is_open:
            return
        open_access_log(self._log, reactor)
        self._is_open = True
        # Added once and never removed: fake reactors may be unable to remove a trigger.
        if not self._closes_with_reactor and IReactorCore.providedBy(reactor):
            self._closes_with_reactor = True
            reactor.addSystemEventTrigger(
                "after", "shutdown", self._reactor_has_shut_down
            )

    def close(self) -> None:
        """Write the buffered lines and close the file. A no-op if it is closed."""
        self._is_open = False
        self._log.close()

    def _reactor_has_shut_down(self) -> None:
        self._closes_with_reactor = False  # the trigger is used up
        self.close()
