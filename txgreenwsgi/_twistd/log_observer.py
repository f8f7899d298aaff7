"""The format of twistd's and twist's logs.

twistd makes its log observer before it starts the service, twist afterwards. The file,
its rotation and the signals stay theirs; only the function that formats an event is
replaced.

It knows the options of twistd that select a log. It must never open a file itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.logger import FileLogObserver, ILogObserver, globalLogPublisher
from twisted.python.components import Componentized
from twisted.scripts._twistd_unix import UnixAppLogger

from txgreenwsgi._wsgi.errors import current_errors
from txgreenwsgi.monitoring.log_levels import LogLevels
from txgreenwsgi.monitoring.log_lines import AUTOMATIC, LogLines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LogFormat", "current_request", "current_traceparent"]


def current_request() -> str | None:
    """Return the id of the request to which the running code belongs."""
    errors = current_errors.get()
    return None if errors is None else errors.request_id


def current_traceparent() -> str:
    """Return the Traceparent field of that request; "" without one."""
    # Unset, or None in the compiled state class, without the field.
    return getattr(current_errors.get(), "traceparent", "") or ""


class LogFormat:
    """The choice of a format for the log of this process.

    Args:
        name: `AUTOMATIC` or one of `LOG_FORMATS`.
        parent: the options of twistd or twist; None without a command.
        levels: levels by component, as for `LogLevels`.
    """

    def __init__(
        self,
        name: str,
        parent: Mapping[str, Any] | None,
        levels: Iterable[str] = (),
    ) -> None:
        self._parent: Mapping[str, Any] = parent or {}
        self._levels = LogLevels(levels)
        self._is_chosen = name != AUTOMATIC
        if name == AUTOMATIC:
            name = "dev" if self._is_development() else "text"
        self._name = name

    def enter_application(self, application: object) -> None:
        """Give twistd's application an observer with the format.

        Call before twistd begins to log. No-op unless `application` belongs to twistd,
        and the log is a file or standard output.
        """
        if not isinstance(application, Componentized) or not self._is_twistd():
            return
        if self._parent.get("logger") or self._parent.get("syslog"):
            return
        observer = UnixAppLogger(self._parent)._getLogObserver()
        self._format(observer)
        application.setComponent(ILogObserver, observer)

    @property
    def is_late(self) -> bool:
        """Whether the log begins after the service has started, as in twist."""
        return bool(self._parent) and not self._is_twistd()

    def enter_log(self) -> None:
        """Change the format of the log that has begun.

        twist logs JSON if it does not log to a terminal; that stays without a choice.
        """
        for observer in list(globalLogPublisher._observers):
            if isinstance(observer, FileLogObserver) and (
                self._is_chosen or _is_text(observer)
            ):
                self._format(observer)

    def _format(self, observer: FileLogObserver) -> None:
        observer.formatEvent = LogLines(
            self._name, current_request, current_traceparent, self._levels
        )

    def _is_twistd(self) -> bool:
        return "nodaemon" in self._parent

    def _is_development(self) -> bool:
        """Return whether the server runs in the foreground and logs to a terminal."""
        parent = self._parent
        if not (parent.get("nodaemon") or parent.get("debug")):
            return False
        if parent.get("logfile") not in (None, "", "-"):
            return False
        return sys.stdout is not None and sys.stdout.isatty()


def _is_text(observer: FileLogObserver) -> bool:
    return observer.formatEvent.__qualname__.startswith("textFileLogObserver.")
