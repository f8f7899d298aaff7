"""Tests of route patterns, and of the routes of requests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._threads.routes import RoutePatterns, readable, route_of


class PatternTests(SynchronousTestCase):
    """RoutePatterns."""

    def test_paths(self) -> None:
        """A path matches as a whole; `*` stands for any text."""
        patterns = RoutePatterns(["/reports/*", "/a", "/x*y/z"])
        for path in (
            "/reports/",
            "/reports/7",
            "/reports/7/a\nb",
            "/a",
            "/xy/z",
            "/x/y/z",
        ):
            self.assertTrue(patterns.match("GET", path), path)
        for path in ("/reports", "/my/reports/7", "/a/", "/A", "/", "/xy/zz"):
            self.assertFalse(patterns.match("GET", path), path)

    def test_only_the_asterisk_is_special(self) -> None:
        """Special characters of regular expressions and shells are literal."""
        patterns = RoutePatterns(["/a.b", "/[c]", "/d?", "/e+"])
        for path in ("/a.b", "/[c]", "/d?", "/e+"):
            self.assertTrue(patterns.match("GET", path), path)
        for path in ("/axb", "/c", "/dd", "/ee"):
            self.assertFalse(patterns.match("GET", path), path)

    def test_methods(self) -> None:
        """A pattern with a method matches this method only."""
        patterns = RoutePatterns(["POST /upload", "/both"])
        self.assertTrue(patterns.match("POST", "/upload"))
        self.assertFalse(patterns.match("GET", "/upload"))
        self.assertFalse(patterns.match("post", "/upload"))
        self.assertTrue(patterns.match("BREW", "/both"))

    def test_path_with_a_space(self) -> None:
        """A path may contain spaces, because it is percent-decoded."""
        self.assertTrue(RoutePatterns(["/a b"]).match("GET", "/a b"))
        self.assertTrue(RoutePatterns(["PUT /a b"]).match("PUT", "/a b"))
        self.assertFalse(RoutePatterns(["PUT /a b"]).match("GET", "/a b"))

    def test_non_ascii_path(self) -> None:
        """A pattern matches the bytes of its UTF-8 form, as PEP 3333 decodes them."""
        patterns = RoutePatterns(["/café/*", "PUT /日本"])
        self.assertTrue(patterns.match("GET", "/café/7".encode().decode("latin-1")))
        self.assertTrue(patterns.match("PUT", "/日本".encode().decode("latin-1")))
        self.assertFalse(patterns.match("GET", "/caf\xe9/7"))

    def test_words(self) -> None:
        """`all` matches everything, `auto` and `none` nothing."""
        self.assertTrue(RoutePatterns(["all"]).match("GET", "*"))
        for words in ([], ["auto"], ["none"]):
            self.assertFalse(RoutePatterns(words))
            self.assertFalse(RoutePatterns(words).match("GET", "/auto"))
        self.assertTrue(RoutePatterns(["auto", "/x"]))


class RouteTests(SynchronousTestCase):
    """route_of."""

    def test_variable_parts(self) -> None:
        """Numbers, UUIDs, hashes and tokens are folded."""
        for path, route in (
            ("/", "/"),
            ("/orders/17", "/orders/*"),
            ("/orders/17/items/3", "/orders/*/items/*"),
            ("/u/6f1c1d86-9d3a-4b0e-8a39-6ee2b1b0a0a1/x", "/u/*/x"),
            ("/blob/d41d8cd98f00b204e9800998ecf8427e.png", "/blob/*.png"),
            ("/s/aB3dE5gH7jK9mN1pQ", "/s/*"),
            ("/2026/11/28/", "/*/*/*/"),
            ("/img-800x600.png", "/img-800x600.png"),
            ("/report-2026.pdf", "/report-*.pdf"),
        ):
            self.assertEqual(route_of("GET", path), f"GET {route}", path)

    def test_fixed_parts(self) -> None:
        """Words stay as they are, long ones too."""
        for path in (
            "/v1/health",
            "/deadbeef",
            "/internationalization",
            "/a-b_c",
            "/é",
        ):
            self.assertEqual(route_of("GET", path), f"GET {path}")

    def test_depth(self) -> None:
        """Segments beyond the eighth are folded into one."""
        self.assertEqual(route_of("PUT", "/a" * 50), "PUT" + " " + "/a" * 7 + "/*")

    def test_route_is_a_pattern(self) -> None:
        """The route of a request is a pattern that matches it."""
        for path in (
            "/",
            "/orders/17/items",
            "/a" * 50,
            "/x y/5",
            "/blob/d41d8cd98f00.png",
            "/café/7".encode().decode("latin-1"),
            "/caf\xe9/7",
            "/line\nline",
        ):
            route = readable(route_of("GET", path))
            self.assertTrue(route.isprintable())
            self.assertTrue(RoutePatterns([route]).match("GET", path), route)
