"""The Django example over real connections, with a database of its own."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from .processes import LOOPBACK, start

if TYPE_CHECKING:
    from .processes import Answer, ServerProcess


def write(server: ServerProcess, name: str, text: str) -> Answer:
    """Load the page, then send its form, as a browser would."""
    page = server.fetch("/")
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    if found is None:
        raise AssertionError(f"no token in {page.text}")
    cookie = page.headers["Set-Cookie"].split(";")[0]
    form = {"csrfmiddlewaretoken": found[1], "name": name, "text": text}
    return server.fetch(
        "/",
        "POST",
        urlencode(form),
        {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie},
    )


class GuestBookTests(SynchronousTestCase):
    """The guest book."""

    def setUp(self) -> None:
        """Serve it, with an empty database."""
        database = Path(self.mktemp())
        database.parent.mkdir(parents=True, exist_ok=True)
        self.server = start(
            self,
            "greenwsgi",
            "--app=examples.django_project.wsgi:application",
            f"--listen=tcp:0:interface={LOOPBACK}",
            environ={"GUESTBOOK_DATABASE": str(database.absolute())},
        )

    def test_form(self) -> None:
        """An entry appears, escaped; without a CSRF token, the server answers 403."""
        answer = write(self.server, "Ann", "<b>hello</b>")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "/"))
        self.assertIn("&lt;b&gt;hello&lt;/b&gt;", self.server.fetch("/").text)
        self.assertEqual(self.server.fetch("/", "POST", b"name=x&text=y").status, 403)
        self.assertEqual(self.server.fetch("/export").text, "Ann: <b>hello</b>\n")

    def test_concurrency(self) -> None:
        """Fifty slow views overlap, and none of their entries is lost."""
        with ThreadPoolExecutor(70) as pool:
            started = time.monotonic()
            slow = [
                pool.submit(self.server.fetch, "/slow?seconds=1") for _ in range(50)
            ]
            wrote = [
                pool.submit(write, self.server, "Bob", f"number {number}")
                for number in range(10)
            ]
            self.assertEqual([each.result().status for each in wrote], [302] * 10)
            counts = [json.loads(each.result().body) for each in slow]
            self.assertLess(time.monotonic() - started, 25.0)
        self.assertEqual(len(counts), 50)
        self.assertEqual(
            sorted(self.server.fetch("/export").text.split("\n")[:-1]),
            sorted(f"Bob: number {number}" for number in range(10)),
        )
