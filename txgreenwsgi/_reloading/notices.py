"""Notices of the system about changes in directories, by the package watchfiles.

They only say when to look: whether a watched file has changed is decided by its
signature. The package is optional; without it, files are looked at once a second.

It knows the package. It must never know which files matter.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DirectoryNotices", "find_watch"]

_log = Logger()

#: Time until a thread that watches directories notices that it has to end.
_END_MILLISECONDS: Final = 200
_DEBOUNCE_MILLISECONDS: Final = 50


def find_watch() -> Callable[..., Iterator[object]] | None:
    """Return the function `watchfiles.watch`; None if it is not installed."""
    try:
        from watchfiles import watch
    except ImportError:
        return None
    return watch


class DirectoryNotices:
    """A thread that waits for changes in directories.

    Call from the reactor greenlet.

    Args:
        watch: `watchfiles.watch`.
        reactor: calls `changed`.
        changed: called in the reactor greenlet after a change.
    """

    def __init__(
        self,
        watch: Callable[..., Iterator[object]],
        reactor: Any,
        changed: Callable[[], object],
    ) -> None:
        self._watch = watch
        self._reactor = reactor
        self._changed = changed
        self._directories: set[str] = set()
        self._stop = threading.Event()

    def set_directories(self, directories: set[str]) -> None:
        """Wait for changes in these directories, not below them, from now on."""
        if directories == self._directories:
            return
        self._stop.set()
        self._stop = threading.Event()
        self._directories = directories
        if directories:
            threading.Thread(
                target=self._run,
                args=(self._stop, sorted(directories)),
                name="watchfiles",
                daemon=True,
            ).start()

    def _run(self, stop: threading.Event, directories: list[str]) -> None:
        try:
            for _ in self._watch(
                *directories,
                watch_filter=None,
                debounce=_DEBOUNCE_MILLISECONDS,
                step=_DEBOUNCE_MILLISECONDS // 5,
                rust_timeout=_END_MILLISECONDS,
                stop_event=stop,
                recursive=False,
                raise_interrupt=False,
            ):
                self._reactor.callFromThread(self._notice, stop)
        except Exception:
            # A directory that has just been removed, or no watches left. The files are
            # still looked at once a second.
            if not stop.is_set():
                _log.failure("cannot watch directories")

    def _notice(self, stop: threading.Event) -> None:
        if not stop.is_set():
            self._changed()
