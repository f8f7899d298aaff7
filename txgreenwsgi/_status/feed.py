"""Snapshots for all open status pages: one a second, and none while no page is open.

It knows the server behind the control socket. It must never know a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from .history import History
from .page import View, fragment

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from txgreenwsgi._control.interface import Controlled, SnapshotInformation

    from .markup import Markup

__all__ = ["Drawn", "Feed"]

#: Interval between two snapshots.
INTERVAL_SECONDS: Final = 1.0


class Drawn:
    """A view, and its HTML for all pages.

    Args:
        view: the content of the page.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self._html: Markup | None = None

    @property
    def html(self) -> Markup:
        """The part of the page that changes."""
        if self._html is None:
            self._html = fragment(self.view)
        return self._html


class Feed:
    """The snapshots of one server. Call from the reactor's thread; never parks.

    Args:
        controlled: the server.
        reactor: its clock.
    """

    def __init__(self, controlled: Controlled, reactor: IReactorTime) -> None:
        self._controlled = controlled
        self._reactor = reactor
        self._history = History()
        self._waiting: list[Deferred[Drawn]] = []
        self._asked_at = float("-inf")
        self._latest: Drawn | None = None
        self._call: IDelayedCall | None = None
        self._is_asking = False

    def next(self) -> Deferred[Drawn]:
        """Return the next snapshot, at most a second after the last one.

        Returns:
            A Deferred, which may be cancelled. It fails if the server does.
        """
        waiting: Deferred[Drawn] = Deferred(self._forget)
        self._waiting.append(waiting)
        self._schedule()
        return waiting

    def latest(self) -> Deferred[Drawn]:
        """Return the last snapshot if it is less than a second old, or the next one."""
        latest = self._latest
        now = self._reactor.seconds()
        if latest is not None and now - self._asked_at < INTERVAL_SECONDS:
            return succeed(latest)
        return self.next()

    def _schedule(self) -> None:
        if self._call is not None or self._is_asking:
            return
        due = self._asked_at + INTERVAL_SECONDS - self._reactor.seconds()
        self._call = self._reactor.callLater(max(due, 0.0), self._ask)

    def _forget(self, waiting: Deferred[Drawn]) -> None:
        """Ask no more if no page waits."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Ask no more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _ask(self) -> None:
        self._call = None
        self._asked_at = self._reactor.seconds()
        self._is_asking = True
        asked = maybeDeferred(self._controlled.snapshot)
        asked.addCallback(self._draw).addCallbacks(self._send, self._fail)

    def _draw(self, snapshot: SnapshotInformation) -> Drawn:
        history = self._history
        history.add(snapshot)
        view = View(snapshot, tuple(history.samples), dict(history.rates))
        return Drawn(view)

    def _send(self, drawn: Drawn) -> None:
        self._latest = drawn
        self._is_asking = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(drawn)

    def _fail(self, failure: Failure) -> None:
        self._is_asking = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(failure)
