"""The pages as HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._status.history import History
from txgreenwsgi._status.markup import Markup, element, joined, sparkline, table
from txgreenwsgi._status.page import (
    MOST_ROWS,
    View,
    failure_page,
    fragment,
    login_page,
    message_page,
    request_page,
    status_page,
    worker_page,
)

from .snapshots import HOSTILE, failure, request, snapshot, worker

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Elements without an end.
VOID = {"input", "link", "meta"}

#: All elements that the pages consist of.
KNOWN = {
    *("html", "head", "meta", "link", "title", "noscript", "script", "body", "main"),
    *("header", "h1", "h2", "p", "section", "figure", "figcaption", "small", "b", "i"),
    *("svg", "polygon", "polyline", "table", "thead", "tbody", "tr", "th", "td"),
    *("a", "span", "pre", "form", "input", "button", "label"),
}


class Checker(HTMLParser):
    """Checks that elements are known, nested, and free of script."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        assert tag in KNOWN, tag
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name != "style"
            assert not (value or "").strip().lower().startswith("javascript:")
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text.append(data)


def parsed(page: str) -> Checker:
    """Return a page whose elements are as they should be."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == [], checker.open
    return checker


def view(samples: Iterable[Any] = (), **more: Any) -> View:
    """Return what a page shows."""
    return View(snapshot(**more), tuple(samples), {1: 2.5})


class MarkupTests(SynchronousTestCase):
    """`markup`."""

    def test_escaped(self) -> None:
        """Text and attributes are escaped, and HTML is not escaped again."""
        inner = element("b", "<&>")
        self.assertEqual(inner, "<b>&lt;&amp;&gt;</b>")
        outer = element("a", inner, "'", href='"><script>', class_="x", id=None)
        self.assertEqual(
            outer,
            '<a href="&quot;&gt;&lt;script&gt;" class="x"><b>&lt;&amp;&gt;</b>'
            "&#x27;</a>",
        )
        self.assertIsInstance(joined("<", inner), Markup)

    def test_concatenation_is_text(self) -> None:
        """HTML that was joined by other means is escaped: no mistake is unsafe."""
        self.assertEqual(joined(element("b") + "<i>"), "&lt;b&gt;&lt;/b&gt;&lt;i&gt;")

    def test_table(self) -> None:
        """Each cell has its title, for narrow screens."""
        found = parsed(table(("a<", "b"), [("1", "<2>")], ("n",)))
        self.assertIn(("td", {"data-title": "a<", "class": "n"}), found.found)
        self.assertEqual(found.text, ["a<", "b", "1", "<2>"])

    def test_sparkline(self) -> None:
        """The latest value is at the right, and the highest one at the top."""
        found = dict(parsed(sparkline([0.0, 2.0, 1.0], 5, "x")).found)
        self.assertEqual(found["polyline"]["points"], "120.0,39.0 180.0,2.0 240.0,20.5")
        for values in ([], [0.0], [0.0, 0.0]):
            parsed(sparkline(values, 5, "x"))


class PageTests(SynchronousTestCase):
    """The pages."""

    def test_content(self) -> None:
        """The page shows workers, requests, routes, blocked lines and failures."""
        page = status_page(view())
        text = " ".join(parsed(page).text)
        for expected in (
            *("shop:app", "1 worker, master pid 4000", "up 1 min 11 s", "4001", "2.5"),
            *("1f6a-2", "/orders/7", "sleep(30)", "for 2.5 s", "192.0.2.1"),
            *("GET /orders/*", "0.20 s", "1.02 s", "12 s for which this page was open"),
            *("/srv/shop/reports.py:88 in totals", "0.90 s", "GET /reports/7"),
            *("ValueError: no such order", "10 s ago", "POST /orders"),
        ):
            self.assertIn(expected, text)
        links = [
            attributes["href"] for tag, attributes in parsed(page).found if tag == "a"
        ]
        self.assertEqual(links, ["workers/1", "requests/1f6a-2", "failures/ab12-1"])

    def test_no_foreign_address(self) -> None:
        """The page loads nothing from elsewhere, and has neither script nor style."""
        found = parsed(status_page(view())).found
        for tag, attributes in found:
            for name in ("src", "href", "action"):
                address = attributes.get(name) or ""
                self.assertNotIn("//", address)
                self.assertFalse(address.startswith("/"), (tag, address))
        scripts = [attributes for tag, attributes in found if tag == "script"]
        self.assertEqual(scripts, [{"src": "status.js", "defer": None}])

    def test_without_script(self) -> None:
        """Without JavaScript, a browser loads the page again every few seconds."""
        self.assertIn(
            '<noscript><meta http-equiv="refresh" content="5"></noscript>',
            status_page(view()),
        )

    def test_hostile(self) -> None:
        """Text from clients, and of exceptions, stays text everywhere."""
        row = request(
            **dict.fromkeys(
                ("request_id", "method", "path", "state", "waiting_on", "remote_addr"),
                HOSTILE,
            )
        )
        snapshot_of = snapshot()
        route = {**snapshot_of["routes"][0], "method": HOSTILE, "pattern": HOSTILE}
        line = dict.fromkeys(("filename", "function", "kind", "request"), HOSTILE)
        last = {"succeeded": False, "replaced": 0, "reason": f"x\n{HOSTILE}x"}
        bad = failure(
            **dict.fromkeys(
                ("failure_id", "error", "place", "method", "path", "request_id"),
                HOSTILE,
            )
        )
        hostile = view(
            app=HOSTILE,
            version=HOSTILE,
            listening=[HOSTILE],
            last_reload=last,
            stopping=True,
            reloading=True,
            workers=[
                worker(in_flight=[row, request(waiting_on="", state=HOSTILE)]),
                worker(2, in_flight=None, beat_age=9.0, current=HOSTILE),
                worker(3, state=HOSTILE),
            ],
            routes=[route],
            blocked=[{**snapshot_of["blocked"][0], **line}],
            failures=[bad],
        )
        for page in (
            status_page(hostile),
            request_page(HOSTILE, HOSTILE, HOSTILE),
            worker_page(HOSTILE, HOSTILE),
            failure_page({**bad, "traceback": HOSTILE}, 1000.0),  # type: ignore[typeddict-item]
            message_page(HOSTILE, HOSTILE, ""),
        ):
            parsed(page)
            self.assertNotIn("<img", page)
            self.assertNotIn("\x1b", page)
            self.assertNotIn("\u202e", page)

    def test_empty(self) -> None:
        """A server without anything to show has a page too."""
        page = status_page(
            View(
                snapshot(workers=[], routes=[], blocked=[], failures=[], listening=[]),
                (),
                {},
            )
        )
        text = " ".join(parsed(page).text)
        self.assertEqual(text.count("None."), 3)
        self.assertIn("No worker is running.", text)

    def test_states(self) -> None:
        """A worker that is blocked is shown with the request that it runs."""
        page = fragment(
            view(
                workers=[
                    worker(1, in_flight=None, beat_age=4.0, current="1f-2 GET /x"),
                    worker(2, in_flight=None, beat_age=0.2),
                    worker(3, state="booting", served=None, lag=None, rss=None),
                ]
            )
        )
        self.assertIn('<span class="bad">blocked</span> in ', page)
        self.assertIn("1f-2 GET /x", page)
        self.assertIn('<span class="bad">silent</span>', page)
        self.assertIn("<span>booting</span>", page)

    def test_many_requests(self) -> None:
        """The oldest requests of all workers are shown, and the number of all."""
        workers = [
            worker(
                number,
                requests=1000,
                in_flight=[
                    request(request_id=f"{number}f-{n}", age=float(n))
                    for n in range(200)
                ],
            )
            for number in (1, 2)
        ]
        page = fragment(view(workers=workers))
        self.assertEqual(page.count('href="requests/'), MOST_ROWS)
        self.assertIn("1f-199", page)
        self.assertNotIn("1f-100<", page)
        self.assertIn("The oldest 100 of 2000.", page)

    def test_response(self) -> None:
        """The response of a request shows its status and size so far."""
        rows = [
            request(status=200, bytes_sent=5_000_000),
            request(status=206, bytes_sent=10),
        ]
        page = fragment(view(workers=[worker(in_flight=rows)]))
        self.assertIn("200, 5000 kB", page)
        self.assertIn("206, 10 B", page)

    def test_charts(self) -> None:
        """The charts show the last value and the highest one."""
        history = History()
        for second, served in enumerate((0, 100, 130)):
            history.add(snapshot(time=1000.0 + second, workers=[worker(served=served)]))
        page = fragment(View(snapshot(queued=4), tuple(history.samples), {}))
        self.assertIn("<b>30</b> requests/s", page)
        self.assertIn("at most 100", page)
        self.assertIn("<b>1</b> in flight (4 queued)", page)
        self.assertIn("<b>2.0 ms</b> reactor lag", page)

    def test_single_process(self) -> None:
        """A server without workers is called a process."""
        page = fragment(view(target=0))
        self.assertIn("<h2>Process</h2>", page)
        self.assertNotIn("reloads", page)

    def test_cancel_form(self) -> None:
        """A request can be cancelled only with the token of a form."""
        self.assertNotIn("<form", request_page("1f-2", "x", ""))
        page = request_page("1f-2", "x", "t0ken")
        self.assertIn('<form method="post" action="1f-2/cancel">', page)
        self.assertIn('name="form" value="t0ken"', page)

    def test_login(self) -> None:
        """The page asks for the token in a form that a browser does not put in URLs."""
        page = login_page("../", failed=True)
        self.assertIn('<form method="post" action="../login">', page)
        self.assertIn("not the token", page)
        parsed(page)
