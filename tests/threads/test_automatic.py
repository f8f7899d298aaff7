"""Tests of the automatic choice of routes, with a fake clock."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from txgreenwsgi._threads.automatic import AutomaticRoutes

ROUTE = "GET /reports/*"


class AutomaticTests(SynchronousTestCase):
    """AutomaticRoutes."""

    def setUp(self) -> None:
        """Make routes, and collect log lines."""
        self.clock = Clock()
        self.routes = AutomaticRoutes(self.clock.seconds)
        self.lines: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def slow(self, count: int, route: str = ROUTE) -> None:
        """Serve slow requests in tasks."""
        for _ in range(count):
            self.routes.ended(route, 0.048, 0.05)

    def quick(self, count: int, route: str = ROUTE) -> None:
        """Serve quick requests in tasks."""
        for _ in range(count):
            self.routes.ended(route, 0.0, 0.001)

    def test_move(self) -> None:
        """After the first slow request, three more move the route."""
        self.slow(3)
        self.assertEqual(self.routes.moved, {})
        self.assertTrue(self.routes.observes)
        self.slow(1)
        self.assertEqual(list(self.routes.moved), [ROUTE])
        self.assertFalse(self.routes.observes)
        self.assertEqual(len(self.lines), 1)
        for words in (ROUTE, "4 times", "48 ms", f"--threads-for '{ROUTE}'"):
            self.assertIn(words, self.lines[0])

    def test_long_requests(self) -> None:
        """A request of 150 ms or more counts as three: the route moves after two."""
        self.routes.ended(ROUTE, 0.16, 0.16)
        self.assertEqual(self.routes.moved, {})
        self.routes.ended(ROUTE, 0.16, 0.16)
        self.assertIn(ROUTE, self.routes.moved)

    def test_rarely_slow_is_not_observed(self) -> None:
        """After 20 requests that are rarely slow, the route is no longer observed."""
        self.slow(3)
        self.quick(17)
        self.assertTrue(self.routes.observes)
        self.quick(1)
        self.assertFalse(self.routes.observes)

    def test_not_measured(self) -> None:
        """Requests from before the observation begin it, and do not count."""
        for _ in range(10):
            self.routes.ended(ROUTE, 0.048, None)
        self.assertTrue(self.routes.observes)
        self.assertEqual(self.routes.moved, {})
        self.slow(3)
        self.assertIn(ROUTE, self.routes.moved)

    def test_one_slow_request(self) -> None:
        """A single slow request, which may import modules, moves nothing."""
        self.slow(1)
        self.quick(1000)
        self.assertEqual(self.routes.moved, {})

    def test_rarely_slow(self) -> None:
        """A route with less than a quarter of slow requests stays."""
        self.slow(1)
        for _ in range(50):
            self.slow(1)
            self.quick(9)
        self.assertEqual(self.routes.moved, {})

    def test_a_third_of_slow_requests(self) -> None:
        """A route with a third of slow requests moves."""
        self.slow(1)
        for _ in range(4):
            self.quick(2)
            self.slow(1)
        self.assertIn(ROUTE, self.routes.moved)

    def test_other_routes(self) -> None:
        """Each route has its own count."""
        for number in range(20):
            self.slow(3, f"GET /{number}a")
        self.assertEqual(self.routes.moved, {})

    def test_waiting_requests(self) -> None:
        """A request that waits for twice the time that it blocks stays in its task."""
        for _ in range(20):
            self.routes.ended(ROUTE, 0.03, 1.03)
        self.assertEqual(self.routes.moved, {})

    def test_observation_ends(self) -> None:
        """A minute after the last slow request, the route is no longer observed."""
        self.slow(1)
        self.clock.advance(59)
        self.quick(1)
        self.assertTrue(self.routes.observes)
        self.clock.advance(2)
        self.quick(1)
        self.assertFalse(self.routes.observes)

    def test_return(self) -> None:
        """After 50 quick requests in a row, the route returns to tasks."""
        self.slow(4)
        for _ in range(49):
            self.routes.ended_in_thread(ROUTE, 0.001)
        self.routes.ended_in_thread(ROUTE, 0.1)
        for _ in range(49):
            self.routes.ended_in_thread(ROUTE, 0.001)
        self.assertIn(ROUTE, self.routes.moved)
        self.routes.ended_in_thread(ROUTE, 0.001)
        self.assertEqual(self.routes.moved, {})
        self.assertIn("50 times in a row", self.lines[-1])
        # Requests that had begun in threads.
        self.routes.ended_in_thread(ROUTE, 0.001)

    def test_higher_bar(self) -> None:
        """A route that has returned needs twice as many slow requests."""
        self.slow(4)
        for needed in (6, 12):
            for _ in range(50):
                self.routes.ended_in_thread(ROUTE, 0.001)
            self.slow(needed)
            self.assertEqual(self.routes.moved, {})
            self.slow(1)
            self.assertIn(ROUTE, self.routes.moved)

    def test_failure_in_a_thread(self) -> None:
        """A route that fails in one of its first ten requests returns for good."""
        self.slow(4)
        for _ in range(9):
            self.routes.ended_in_thread(ROUTE, 0.1)
        self.routes.ended_in_thread(ROUTE, 0.1, failed=True)
        self.assertEqual(self.routes.moved, {})
        self.assertIn("has failed in a thread", self.lines[-1])
        self.slow(20)
        self.assertEqual(self.routes.moved, {})

    def test_failure_as_in_tasks(self) -> None:
        """A route that has failed in tasks too remains in threads."""
        self.slow(1)
        for _ in range(3):
            self.routes.ended(ROUTE, 0.048, 0.05, failed=True)
        self.routes.ended_in_thread(ROUTE, 0.1, failed=True)
        self.assertIn(ROUTE, self.routes.moved)

    def test_later_failure(self) -> None:
        """A later failure is a failure as in tasks."""
        self.slow(4)
        for _ in range(10):
            self.routes.ended_in_thread(ROUTE, 0.1)
        self.routes.ended_in_thread(ROUTE, 0.1, failed=True)
        self.assertIn(ROUTE, self.routes.moved)

    def test_pinned_route(self) -> None:
        """A pinned route returns to tasks, and never moves again."""
        self.slow(4)
        self.routes.pin(ROUTE, "waits for Deferreds")
        self.assertEqual(self.routes.moved, {})
        self.assertIn(f"{ROUTE} waits for Deferreds", self.lines[-1])
        lines = len(self.lines)
        self.slow(50)
        self.routes.pin(ROUTE, "waits for Deferreds")
        self.assertEqual(self.routes.moved, {})
        self.assertEqual(len(self.lines), lines)

    def test_many_routes(self) -> None:
        """The tables are bounded."""
        for number in range(3000):
            self.slow(4, f"GET /{number}a")
            self.slow(1, f"GET /{number}b")
        self.assertEqual(len(self.routes.moved), 1000)
