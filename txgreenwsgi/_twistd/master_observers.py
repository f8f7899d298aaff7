"""Observers of the master: for the last master, and for systemd.

They know notifications. They must never know workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._workers.interface import MasterObserver

if TYPE_CHECKING:
    from txgreenwsgi._workers.handover import Predecessor
    from txgreenwsgi._workers.interface import ReloadResult

    from .notify import Notifier

__all__ = ["SuccessorObserver", "SystemdObserver"]


class SuccessorObserver(MasterObserver):
    """Tells the last master that this one serves.

    Args:
        predecessor: the last master.
    """

    def __init__(self, predecessor: Predecessor) -> None:
        self._predecessor = predecessor

    def ready(self) -> None:
        """Report it."""
        self._predecessor.report_ready()


class SystemdObserver(MasterObserver):
    """Reports the state of the workers to systemd.

    Args:
        notifier: sends the notifications.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._text = "starting workers"
        self._failure = ""

    def status(self) -> str:
        """Return the last state."""
        return self._text + self._failure

    def ready(self) -> None:
        """Report that the server is ready."""
        self._notifier.ready()

    def reloading(self) -> None:
        """Report the beginning of a reload."""
        self._failure = ""
        self._notifier.reloading()

    def reloaded(self, result: ReloadResult) -> None:
        """Report the end of a reload; a failure stays in the status."""
        self._notifier.ready()
        if not result.succeeded:
            self._failure = f"; reload failed: {result.reason.splitlines()[-1]}"
            self._notifier.status(self.status())

    def changed(self, text: str) -> None:
        """Report the workers."""
        self._text = text
        self._notifier.status(self.status())
