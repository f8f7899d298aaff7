"""Requests by route."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.monitoring.path_patterns import path_expression
from txgreenwsgi.monitoring.routes import (
    CLASSES,
    MOST_ROUTES,
    OTHER,
    UNKNOWN_PATHS,
    Routes,
    merged,
    pattern_of,
)


class PatternTests(SynchronousTestCase):
    """`pattern_of`."""

    def test_patterns(self) -> None:
        """A segment that names an object becomes `*`; words stay."""
        for path, pattern in [
            ("/", "/"),
            ("/orders/17", "/orders/*"),
            ("/orders/17/lines/2", "/orders/*/lines/*"),
            ("/users/0f8fad5b-d9cb-469f-a165-70867728950e/", "/users/*/"),
            ("/blobs/da39a3ee5e6b4b0d", "/blobs/*"),
            ("/s/a1b2c3d4e5f6g7h8i9", "/s/*"),
            ("/api/v2/deadbeef", "/api/v2/deadbeef"),
            ("/documentation/introduction-to-wsgi", None),
            ("*", "*"),
            ("", ""),
        ]:
            self.assertEqual(pattern_of(path), path if pattern is None else pattern)

    def test_matches(self) -> None:
        """A pattern, given to `--threads-for`, matches the path."""
        for text in ("/orders/17/lines/2", "/a" * 200, "/\xe4\xf6/12"):
            path = text.encode().decode("latin-1")
            pattern = pattern_of(path).encode("latin-1").decode()
            self.assertTrue(path_expression(pattern).match(path), text)

    def test_long(self) -> None:
        """A long path is cut."""
        self.assertLess(len(pattern_of("/a" * 5000)), 130)


class RoutesTests(SynchronousTestCase):
    """`Routes` and `merged`."""

    def test_statistics(self) -> None:
        """Requests are added up by route; the slowest is first."""
        routes = Routes()
        for number, seconds in enumerate((0.001, 0.003, 0.008)):
            routes.add("GET", f"/a/{number}", 200, seconds, failed=False)
        routes.add("POST", "/b", 500, 2.0, failed=False)
        routes.add("POST", "/b", 200, 1.0, failed=True)
        slow, fast = routes.statistics()
        self.assertEqual((slow.method, slow.pattern), ("POST", "/b"))
        self.assertEqual((slow.requests, slow.failures), (2, 2))
        self.assertEqual((slow.mean, slow.longest, slow.seconds), (1.5, 2.0, 3.0))
        self.assertEqual((fast.pattern, fast.requests), ("/a/*", 3))
        self.assertEqual(fast.durations[:6], (0, 1, 1, 0, 1, 0))
        self.assertEqual(sum(fast.durations), 3)

    def test_quantile(self) -> None:
        """A quantile is the upper limit of a class, and no more than the longest."""
        routes = Routes()
        for _ in range(95):
            routes.add("GET", "/", 200, 0.0015, failed=False)
        for _ in range(5):
            routes.add("GET", "/", 200, 1.1, failed=False)
        (route,) = routes.statistics()
        self.assertEqual(route.quantile(0.5), 0.002)
        self.assertEqual(route.quantile(0.95), 0.002)
        self.assertEqual(route.quantile(0.99), 1.1)
        self.assertEqual(route.quantile(1.0), 1.1)

    def test_long_duration(self) -> None:
        """The last class has no upper limit."""
        routes = Routes()
        routes.add("GET", "/", 200, 1e6, failed=False)
        routes.add("GET", "/", 200, 0.0, failed=False)
        (route,) = routes.statistics()
        self.assertEqual(len(route.durations), CLASSES)
        self.assertEqual((route.durations[0], route.durations[-1]), (1, 1))
        self.assertEqual(route.quantile(0.99), 1e6)

    def test_unknown_paths(self) -> None:
        """Paths that do not exist are one route: clients can make up any number."""
        routes = Routes()
        for number in range(2000):
            routes.add("GET", f"/x{number}y", 404, 0.1, failed=False)
        (route,) = routes.statistics()
        self.assertEqual((route.pattern, route.requests), (UNKNOWN_PATHS, 2000))

    def test_most_routes(self) -> None:
        """Further routes are counted together."""
        routes = Routes()
        for number in range(20 * MOST_ROUTES):
            routes.add("GET", f"/x{number}y", 200, 0.1, failed=False)
        found = {(route.method, route.pattern): route for route in routes.statistics()}
        self.assertEqual(len(found), MOST_ROUTES + 1)
        self.assertEqual(found["", OTHER].requests, 19 * MOST_ROUTES)

    def test_merged(self) -> None:
        """The routes of two processes are added up."""
        one, other = Routes(), Routes()
        one.add("GET", "/a", 200, 0.5, failed=False)
        one.add("GET", "/b", 200, 0.1, failed=False)
        other.add("GET", "/a", 500, 1.5, failed=False)
        first, second = merged([*one.statistics(), *other.statistics()])
        self.assertEqual((first.pattern, first.requests), ("/a", 2))
        self.assertEqual((first.mean, first.longest, first.failures), (1.0, 1.5, 1))
        self.assertEqual(sum(first.durations), 2)
        self.assertEqual((second.pattern, second.requests), ("/b", 1))
