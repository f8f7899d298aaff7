"""Trac, a wiki and issue tracker, driven like by a browser."""

from __future__ import annotations

import http.cookiejar
import os
import re
import urllib.request
from typing import Any
from urllib.parse import urlencode

from .client import (
    TIMEOUT_SECONDS,
    at_once,
    check,
    data_folder,
    fetch,
    main,
    program,
    run,
)


def prepare() -> None:
    """Create a project in which anyone may do anything."""
    folder = str(data_folder() / "project")
    admin = [program("trac-admin"), folder]
    run([*admin, "initenv", "Project", "sqlite:db/trac.db"])
    run([*admin, "permission", "add", "anonymous", "TRAC_ADMIN"])


def make_app() -> Any:
    """Return the application of the project."""
    os.environ["TRAC_ENV"] = str(data_folder() / "project")
    from trac.web.main import dispatch_request

    return dispatch_request


class _Browser:
    """A client with cookies, which hold the token of Trac's forms."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._cookies = http.cookiejar.CookieJar()
        handler = urllib.request.HTTPCookieProcessor(self._cookies)
        self._opener = urllib.request.build_opener(handler)

    def get(self, path: str) -> str:
        """Return a page."""
        with self._opener.open(self._url + path, timeout=TIMEOUT_SECONDS) as response:
            return str(response.read().decode())

    def post(self, path: str, **fields: str) -> str:
        """Send a form; return the page that it leads to."""
        [token] = [c.value for c in self._cookies if c.name == "trac_form_token"]
        body = urlencode({"__FORM_TOKEN": token, **fields}).encode()
        with self._opener.open(self._url + path, body, TIMEOUT_SECONDS) as response:
            return str(response.read().decode())


def drive(url: str) -> None:
    """Edit wiki pages, create and change tickets, search."""
    browser = _Browser(url)
    check("wiki", "Welcome to Trac" in browser.get("/wiki"))
    fields = {"action": "edit", "version": "0", "save": "Submit changes"}
    text = "= Heading =\n'''bold''' é\n"
    page = browser.post("/wiki/NewPage", text=text, comment="new", **fields)
    check("new wiki page", "<strong>bold</strong> é" in page)
    check("history", "new" in browser.get("/wiki/NewPage?action=history"))

    def ticket(number: int) -> str:
        own = _Browser(url)
        own.get("/newticket")
        page = own.post(
            "/newticket",
            field_summary=f"Summary {number}",
            field_description="text",
            field_status="new",
            submit="Create ticket",
        )
        return "".join(re.findall(r"Summary \d+", page)[:1])

    summaries = at_once(ticket, 10)
    expected = [f"Summary {number}" for number in range(10)]
    check("10 clients create tickets", summaries == expected, summaries)
    report = browser.get("/query?col=summary&max=100")
    check("query", all(each in report for each in expected))
    check("search", "NewPage" in browser.get("/search?q=Heading&wiki=on&noquickjump=1"))
    check(
        "timeline", "NewPage" in browser.get("/timeline?wiki=on&ticket=on&daysback=9")
    )
    feed = fetch(f"{url}/timeline?wiki=on&format=rss")
    check("feed", feed.status == 200 and b"<rss" in feed.body)
    check("static file", fetch(f"{url}/chrome/common/css/trac.css").status == 200)
    pages = at_once(lambda _: fetch(f"{url}/wiki/NewPage").status)
    check("50 pages at once", set(pages) == {200}, pages)
    check("a wrong page is 404", fetch(f"{url}/nothing").status == 404)


if __name__ == "__main__":
    main(prepare, drive)
