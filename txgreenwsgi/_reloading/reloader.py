"""The decision to restart the worker, because a file has changed.

A scan reads the signatures of all watched files, in a thread. Files that differ from
the last start are scanned again until they rest, so that a save in several steps, or a
checkout of many files, is one restart. What a worker reads while it starts is compared
with the scan from before its start, so a change meanwhile restarts it again.

It knows times and signatures. It must never know processes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.logger import Logger

from .watching import changes, directories, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from .watching import Snapshot

__all__ = ["POLL_SECONDS", "SETTLE_SECONDS", "Reloader"]

_log = Logger()

#: Time between two scans; longer if a scan takes more than a twentieth of it.
POLL_SECONDS: Final = 1.0
_POLL_SHARE: Final = 20.0

#: Time for which files must not change before the worker is restarted.
SETTLE_SECONDS: Final = 0.1
#: Maximum time until it is restarted although they still change.
_MAX_SETTLE_SECONDS: Final = 3.0

#: Number of starts one after the other in which a file may change.
_MAX_OWN_CHANGES: Final = 3

#: Number of changed files that are named in the log.
_NAMED: Final = 3


class _News(NamedTuple):
    """The state in which a scan begins.

    Attributes:
        grown: files were added since the last scan began.
        replaced: they have replaced others.
        begun: the time.
    """

    grown: bool
    replaced: bool
    begun: float


class Reloader:
    """Watches files and restarts a worker.

    Call from the reactor greenlet.

    Args:
        reactor: the clock.
        restart: ends the worker and starts another one; called with the files that
            have changed.
        patterns: absolute patterns of further files.
        in_thread: calls a function in a thread; returns a Deferred with its result.
        watch: called with directories when they change; it calls `look` soon after a
            change in one of them, where the system can tell. None without that.
        wall_clock: the time in nanoseconds since 1970, as in file systems.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        restart: Callable[[set[str]], object],
        patterns: Iterable[str],
        in_thread: Callable[..., Deferred[Any]],
        watch: Callable[[set[str]], object] | None = None,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._reactor = reactor
        self._restart = restart
        self._extra = frozenset(patterns)
        self._in_thread = in_thread
        self._watch = watch
        self._wall_clock = wall_clock
        self._call: IDelayedCall | None = None
        self._running = False
        self._scanning = False
        self._again = False
        self._worker = 0
        self._started_ns = 0
        self._paths: set[str] = set()
        self._patterns: set[str] = set(self._extra)
        # Whether files were added, or replaced, since the last scan began.
        self._grown = True
        self._replaced = False
        self._baseline: Snapshot = {}
        self._last: Snapshot | None = None
        self._changing_since: float | None = None
        # Whether no worker has listed its files since the last restart.
        self._booting = True
        self._loaded_ns = 0
        # Files that have changed in starts one after the other, with their number.
        self._during_start: Counter[str] = Counter()
        self._ignored: set[str] = set()

    def start(self) -> None:
        """Begin to watch. Call before the first worker starts."""
        self._running = True
        self._started_ns = self._wall_clock()
        self.look()

    def stop(self) -> None:
        """Stop watching."""
        self._running = False
        self._cancel()
        if self._watch is not None:
            self._watch(set())

    def loaded(
        self,
        worker: int,
        files: Collection[str],
        patterns: Collection[str] = (),
        failed: bool = False,
    ) -> None:
        """Add files to watch.

        Args:
            worker: the number of the worker that has loaded them. The files of a new
                worker replace those of its predecessor, unless it has failed: the fix
                may be in any of both.
            files: absolute paths.
            patterns: absolute patterns.
            failed: whether the application does not start.
        """
        if worker < self._worker:
            return  # it is about to end
        if worker > self._worker:
            self._worker = worker
            if not failed:
                self._paths.clear()
                self._patterns = set(self._extra)
                self._replaced = True
        if self._booting:
            self._booting = False
            self._loaded_ns = self._wall_clock()
        self._paths.update(files)
        self._patterns.update(patterns)
        self._grown = True
        self.look()

    def look(self) -> None:
        """Scan now, or when the scan in progress has ended."""
        if not self._running:
            return
        if self._scanning:
            self._again = True
            return
        self._cancel()
        self._scanning = True
        self._again = False
        news = _News(self._grown, self._replaced, self._reactor.seconds())
        self._grown = self._replaced = False
        scanned = self._in_thread(scan, sorted(self._paths), sorted(self._patterns))
        scanned.addCallbacks(self._scanned, _log_failure, callbackArgs=(news,))
        scanned.addBoth(self._schedule, news.begun)

    def _scanned(self, snapshot: Snapshot, news: _News) -> None:
        if not self._running:
            return
        if news.replaced:
            self._baseline = {
                path: signature
                for path, signature in self._baseline.items()
                if path in snapshot or path in self._paths
            }
        if news.grown:
            self._add(snapshot)
            if self._watch is not None:
                found = self._in_thread(
                    directories, set(self._paths), set(self._patterns)
                )
                found.addCallbacks(self._watch, _log_failure)
        changed = changes(self._baseline, snapshot) - self._ignored
        if not changed:
            self._changing_since = None
            self._last = None
            if news.grown and not self._booting:
                self._during_start.clear()
            return
        if self._changing_since is None:
            self._changing_since = news.begun
        moving = self._last != snapshot
        self._last = snapshot
        if moving and news.begun - self._changing_since < _MAX_SETTLE_SECONDS:
            return
        self._last = None
        self._changing_since = None
        self._baseline = snapshot
        if self._is_endless(changed, snapshot):
            return
        self._booting = True
        self._started_ns = self._wall_clock()
        _log.info("{files}: restarting the worker", files=_shown(changed))
        self._restart(changed)

    def _add(self, snapshot: Snapshot) -> None:
        """Add files that are watched for the first time.

        They have changed since the start of the worker if they are younger.
        """
        for path, signature in snapshot.items():
            if path not in self._baseline:
                young = signature[0] > self._started_ns
                self._baseline[path] = (0, 0, 0) if young else signature

    def _is_endless(self, changed: set[str], snapshot: Snapshot) -> bool:
        """Return whether the application itself changes these files when it starts.

        They are then ignored until another file changes.
        """
        own = {path for path in changed if self._wrote_at_start(path, snapshot)}
        if own != changed:
            self._during_start.clear()
            self._ignored.clear()
            return False
        self._during_start.update(own)
        if any(self._during_start[path] < _MAX_OWN_CHANGES for path in own):
            return False
        self._ignored |= own
        _log.warn(
            "{files} at each start of the application: ignoring that until another "
            "file changes",
            files=_shown(own),
        )
        return True

    def _wrote_at_start(self, path: str, snapshot: Snapshot) -> bool:
        signature = snapshot.get(path)
        if signature is None:
            return False
        end = self._wall_clock() if self._booting else self._loaded_ns
        return self._started_ns <= signature[0] <= end

    def _schedule(self, _: object, begun: float) -> None:
        self._scanning = False
        if not self._running:
            return
        if self._again:
            self._again = False
            self._call = self._reactor.callLater(0, self.look)
            return
        seconds = POLL_SECONDS
        if self._changing_since is not None:
            seconds = SETTLE_SECONDS
        else:
            taken = self._reactor.seconds() - begun
            seconds = max(seconds, taken * _POLL_SHARE)
        self._call = self._reactor.callLater(seconds, self.look)

    def _cancel(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None


def _shown(paths: Iterable[str]) -> str:
    """Return the names of changed files for the log."""
    names = [os.path.relpath(path) for path in sorted(paths)]
    text = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return f"{text} and {more} more files changed" if more > 0 else f"{text} changed"


def _log_failure(failure: Failure) -> None:
    _log.failure("cannot scan the files", failure=failure)
