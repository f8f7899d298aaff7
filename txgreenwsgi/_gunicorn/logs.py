"""Twisted's log as part of gunicorn's error log.

It knows log events. It must never know where gunicorn writes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from twisted.logger import ILogObserver, LogLevel, eventAsText
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.logger import LogEvent

__all__ = ["ErrorLogObserver"]

_LEVELS: Final = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}


@implementer(ILogObserver)
class ErrorLogObserver:
    """An observer that writes events to a logger of the standard library.

    Args:
        logger: gunicorn's error log.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __call__(self, event: LogEvent) -> None:
        """Write an event, with the traceback of a failure."""
        level = _LEVELS.get(event.get("log_level"), logging.INFO)
        namespace = event.get("log_namespace") or ""
        if level == logging.INFO and namespace.startswith("twisted."):
            level = logging.DEBUG  # starts and stops of ports and factories
        if self._logger.isEnabledFor(level):
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            self._logger.log(level, "%s", text)
