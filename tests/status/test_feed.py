"""Snapshots for all open status pages."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._status.feed import INTERVAL_SECONDS, Feed

from .snapshots import FakeServer, snapshot


class FeedTests(SynchronousTestCase):
    """`Feed`."""

    def setUp(self) -> None:
        """Make a feed that no page uses."""
        self.clock = Clock()
        self.server = FakeServer()
        self.feed = Feed(self.server, self.clock)

    def test_nobody_looks(self) -> None:
        """Without a page, the server is not asked, and no call is pending."""
        self.clock.advance(100)
        self.assertEqual(self.server.asked, 0)
        waiting = self.feed.next()
        self.clock.advance(0)
        self.successResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100)
        self.assertEqual(self.server.asked, 1)

    def test_interval(self) -> None:
        """All pages share one snapshot a second."""
        first = [self.feed.next() for _ in range(5)]
        self.clock.advance(0)
        drawn = {id(self.successResultOf(each)) for each in first}
        self.assertEqual(len(drawn), 1)
        second = [self.feed.next() for _ in range(5)]
        self.clock.advance(INTERVAL_SECONDS / 2)
        self.assertNoResult(second[0])
        self.clock.advance(INTERVAL_SECONDS / 2)
        html = {self.successResultOf(each).html for each in second}
        self.assertEqual(len(html), 1)
        self.assertEqual(self.server.asked, 2)

    def test_latest(self) -> None:
        """A fresh snapshot is used again."""
        waiting = self.feed.latest()
        self.clock.advance(0)
        drawn = self.successResultOf(waiting)
        self.assertIs(self.successResultOf(self.feed.latest()), drawn)
        self.clock.advance(INTERVAL_SECONDS)
        waiting = self.feed.latest()
        self.assertNoResult(waiting)
        self.clock.advance(0)
        self.assertIsNot(self.successResultOf(waiting), drawn)

    def test_page_that_leaves(self) -> None:
        """When the last page has left, the server is asked no more."""
        self.clock.advance(0)
        self.successResultOf(self._first())
        stays, leaves = self.feed.next(), self.feed.next()
        leaves.cancel()
        self.failureResultOf(leaves)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        stays.cancel()
        self.failureResultOf(stays)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def _first(self) -> Deferred[Any]:
        waiting = self.feed.next()
        self.clock.advance(0)
        return waiting

    def test_slow_server(self) -> None:
        """A page that comes while the server is asked gets that answer."""
        self.server.later = Deferred()
        first = self.feed.next()
        self.clock.advance(0)
        second = self.feed.next()
        self.clock.advance(10)
        self.assertEqual(self.server.asked, 1)
        self.server.later.callback(snapshot())
        self.assertIs(self.successResultOf(first), self.successResultOf(second))

    def test_server_fails(self) -> None:
        """Pages get the failure, and the next one asks again."""
        self.server.later = Deferred()
        first = self.feed.next()
        self.clock.advance(0)
        self.server.later.errback(ControlError("starting"))
        self.failureResultOf(first, ControlError)
        self.server.later = None
        second = self.feed.next()
        self.clock.advance(INTERVAL_SECONDS)
        self.successResultOf(second)

    def test_bug(self) -> None:
        """An exception of the server reaches the pages too."""
        self.server.snapshot = lambda: 1 / 0  # type: ignore[assignment, return-value]
        waiting = self.feed.next()
        self.clock.advance(0)
        self.failureResultOf(waiting, ZeroDivisionError)

    def test_rates(self) -> None:
        """The views of a feed have rates."""
        self.successResultOf(self._first())
        self.server.found = snapshot(time=1002.0)
        waiting = self.feed.next()
        self.clock.advance(INTERVAL_SECONDS)
        view = self.successResultOf(waiting).view
        self.assertEqual(view.rates, {1: 0.0})
        self.assertEqual(len(view.samples), 2)
