"""The observers of the master."""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.master_observers import SystemdObserver
from txgreenwsgi._workers.interface import ReloadResult


class FakeNotifier:
    """Records the notifications."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def ready(self) -> None:
        """Record it."""
        self.sent.append("READY")

    def reloading(self) -> None:
        """Record it."""
        self.sent.append("RELOADING")

    def status(self, text: str) -> None:
        """Record it."""
        self.sent.append(text)


class SystemdObserverTests(SynchronousTestCase):
    """`SystemdObserver`."""

    def test_failed_reload(self) -> None:
        """The reason of a failed reload stays in the status until the next one."""
        notifier = FakeNotifier()
        observer = SystemdObserver(cast("Any", notifier))
        observer.ready()
        observer.changed("2 workers")
        observer.reloading()
        observer.reloaded(ReloadResult(False, 0, "Traceback:\nImportError: shop"))
        observer.changed("2 workers")
        self.assertEqual(
            observer.status(), "2 workers; reload failed: ImportError: shop"
        )
        observer.reloading()
        observer.changed("2 workers, reloading")
        observer.reloaded(ReloadResult(True, 2))
        self.assertEqual(
            notifier.sent,
            [
                "READY",
                "2 workers",
                "RELOADING",
                "READY",
                "2 workers; reload failed: ImportError: shop",
                "2 workers; reload failed: ImportError: shop",
                "RELOADING",
                "2 workers, reloading",
                "READY",
            ],
        )
