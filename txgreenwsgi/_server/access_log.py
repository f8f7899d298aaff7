"""The access log that an embedded server opens and closes by itself.

It knows files and the end of the reactor. It must never know when a server starts or
stops to serve.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

from twisted.internet.interfaces import IReactorCore

from txgreenwsgi.monitoring import AccessLog

from .errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.interfaces import IReactorTime

    from txgreenwsgi.monitoring import ExchangeRecord

__all__ = ["AccessLogFormat", "AccessLogTarget", "ServerAccessLog", "open_access_log"]

AccessLogTarget: TypeAlias = str | os.PathLike[str]
AccessLogFormat: TypeAlias = Literal["combined", "json"]


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

    A relative path is resolved here. The file is checked here too, so that a mistake
    ends the start of the program, but it is created later: a daemon has then changed
    its user.

    Args:
        target: the path of a file to append to, or "-" for standard output.
        format_name: "combined" or "json".

    Raises:
        ValueError: there is no such format.
        StartError: the file cannot be opened for appending.
    """

    def __init__(self, target: AccessLogTarget, format_name: AccessLogFormat) -> None:
        self._log = AccessLog(os.fspath(target), format_name)
        with _as_start_error():
            self._log.prepare()
        self._is_open = False
        self._closes_with_reactor = False

    def observe(self, record: ExchangeRecord) -> None:
        """Record a finished exchange. Never parks, never raises."""
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
        # Once, and for good: fakes of reactors may be unable to remove a trigger.
        if not self._closes_with_reactor and IReactorCore.providedBy(reactor):
            self._closes_with_reactor = True
            reactor.addSystemEventTrigger(
                "after", "shutdown", self._reactor_has_shut_down
            )

    def close(self) -> None:
        """Write the collected lines and close the file. A no-op if it is closed."""
        self._is_open = False
        self._log.close()

    def _reactor_has_shut_down(self) -> None:
        self._closes_with_reactor = False  # the trigger is used up
        self.close()
