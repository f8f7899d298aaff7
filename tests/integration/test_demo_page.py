"""The page of the built-in demonstration in a browser."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .browser import NAMES, Browser, find_browser
from .processes import LOOPBACK, shared

DEMO = "txgreenwsgi.demo:app"


class PageTests(SynchronousTestCase):
    """The buttons of the page."""

    def setUp(self) -> None:
        """Open the page."""
        executable = find_browser()
        if executable is None:
            raise SkipTest(f"no browser is installed: none of {', '.join(NAMES)}")
        self.server = shared(DEMO)
        self.browser = Browser(self, executable)
        self.browser.open(f"http://{LOOPBACK}:{self.server.port}/")

    def press(self, selector: str) -> None:
        """Click on a button."""
        self.browser.run(f"document.querySelector({selector!r}).click()")

    def text(self, name: str) -> str:
        """Return the text of an element."""
        return str(self.browser.run(f"document.getElementById('{name}').innerText"))

    def wait_text(self, name: str, pattern: str) -> re.Match[str]:
        """Wait until an element's text matches a pattern of JavaScript and Python."""
        self.browser.wait_true(
            f"RegExp({json.dumps(pattern)})"
            f".test(document.getElementById('{name}').innerText)"
        )
        found = re.search(pattern, self.text(name))
        if found is None:
            raise AssertionError(f"{pattern!r} is not in {self.text(name)!r}")
        return found

    def record(self, *names: str) -> None:
        """Record each text of some elements: they may change at any time."""
        self.browser.run(
            "(() => { window.told = {}; for (const name of "
            f"{json.dumps(names)}) {{ const element = document.getElementById(name);"
            "told[name] = ''; new MutationObserver(() => {"
            "told[name] += element.textContent + '|'; }).observe("
            "element, {childList: true}); } })()"
        )

    def recorded(self, name: str) -> str:
        """Return the texts of an element since `record`."""
        return str(self.browser.run(f"told[{name!r}]"))

    def test_all_demonstrations(self) -> None:
        """All demonstrations work concurrently; the page loads no other resource."""
        self.wait_text("headline", r"\d+ requests? in flight")
        # The page asks for the list once a second.
        with self.server.connect() as client:
            client.send(b"GET /stream?blocks=40&pause=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            self.wait_text("flight", r"/stream")
        self.press("#sleep-form button")
        slept = self.wait_text("sleep-result", r"200 sleeps .* took ([\d.]+) s")
        self.assertLess(float(slept[1]), 20.0)
        self.assertEqual(
            self.browser.run("document.querySelectorAll('#dots .awake').length"), 200
        )

        self.record("stream-result", "upload-result")
        self.press("#stream-form button")
        self.wait_text("stream-result", r"the last of 10 after")
        self.assertRegex(
            self.recorded("stream-result"), r"Block [1-4] of 10 arrived .*\|.*the last"
        )
        self.assertEqual(
            self.browser.run("document.querySelectorAll('#timeline li').length"), 10
        )

        self.press("#upload-form button")
        self.wait_text("upload-result", r"counted 4,194,304 bytes")
        self.assertRegex(
            self.recorded("upload-result"),
            r"has counted (0\.[1-9]|[123]\.\d) of 4\.0 MiB",
        )
        self.assertEqual(
            self.browser.run("document.getElementById('upload-bar').value"), 1
        )

        for what in ("timer", "thread", "name"):
            self.press(f"[data-what={what}]")
        for what in ("timer", "thread", "name"):
            self.wait_text(f"wait-{what}", r".+, after [\d.]+\s+s")
        self.assertIn("127.0.0.1", self.text("wait-name"))

        for message in ("Hello", "again"):
            self.browser.run(f"document.getElementById('message').value = '{message}'")
            self.press("#echo-form button")
            self.wait_text("echo-result", rf"sent back {message} after [\d.]+ ms")

        self.assertEqual(self.browser.complaints, [])
        loaded = "performance.getEntriesByType('resource').map((each) => each.name)"
        here = f"http://{LOOPBACK}:{self.server.port}/"
        elsewhere = [url for url in self.browser.run(loaded) if here not in url]
        self.assertEqual(elsewhere, [])

    def test_errors_are_shown(self) -> None:
        """An error of the server is shown with its text, and the user can try again."""
        self.browser.run(
            "document.getElementById('sleepers').setAttribute('max', '4000'),"
            "document.getElementById('sleepers').value = 4000"
        )
        self.press("#sleep-form button")
        self.wait_text("sleep-result", r"responded 400: tasks=2000: give a number")
        self.browser.run("document.getElementById('sleepers').value = 40")
        self.press("#sleep-form button")
        self.wait_text("sleep-result", r"40 sleeps")

    def test_too_large_a_file(self) -> None:
        """A file above the limit is refused before it is sent."""
        self.browser.run(
            "(() => { const chosen = new DataTransfer();"
            "chosen.items.add(new File([new Uint8Array(33 << 20)], 'large'));"
            "document.getElementById('file').files = chosen.files; })()"
        )
        self.press("#upload-form button")
        self.wait_text("upload-result", r"at most 32 MiB")

    def test_fits_a_phone(self) -> None:
        """On a narrow screen nothing overflows, in light and in dark mode."""
        self.browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=360,
            height=740,
            deviceScaleFactor=2,
            mobile=True,
        )
        for scheme in ("light", "dark"):
            self.browser.call(
                "Emulation.setEmulatedMedia",
                features=[{"name": "prefers-color-scheme", "value": scheme}],
            )
            wide = self.browser.run("document.documentElement.scrollWidth")
            self.assertLessEqual(wide, 360)
