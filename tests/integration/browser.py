"""Drive a headless Chromium: open a page, run script in it.

It speaks the DevTools protocol over two pipes, with one JSON object between NUL bytes
each way, so it needs a browser and nothing else. It must never visit anything but the
server under test.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from unittest import TestCase

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
STEP_SECONDS = 30.0

#: The browser's error when a form or link navigates away during an evaluation.
_GONE = re.compile("navigated or closed|context was destroyed|Cannot find context")

# Replaces itself by the browser, with the pipes at the numbers it expects.
LAUNCH = (
    sys.executable,
    "-c",
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])",
)


def find_browser() -> str | None:
    """Return the path of a Chromium, or None if none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def _pipe() -> tuple[int, int]:
    """Create a pipe that does not use descriptors 3 and 4, which the browser needs.

    Returns:
        The end to read from and the end to write to.
    """
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


class PageGone(AssertionError):
    """The page in which an expression was evaluated was replaced by another."""


class Browser:
    """One browser with one page.

    Args:
        test: its cleanup ends the browser.
        executable: path from `find_browser`.
        options: further options of the browser.

    Attributes:
        complaints: exceptions of the page and errors that the browser logged.
    """

    def __init__(self, test: TestCase, executable: str, *options: str) -> None:
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        profile = tempfile.mkdtemp(prefix="browser-")
        test.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        to_read, self._to_browser = _pipe()
        self._from_browser, to_write = _pipe()
        self._process = subprocess.Popen(
            [
                *LAUNCH,
                str(to_read),
                str(to_write),
                executable,
                "--headless",
                "--no-sandbox",  # required when running as root; the page is our own
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--no-proxy-server",
                f"--user-data-dir={profile}",
                "--remote-debugging-pipe",
                *options,
                "about:blank",
            ],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        test.addCleanup(self._end)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _end(self) -> None:
        # The browser and its child processes are one process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        os.close(self._to_browser)
        os.close(self._from_browser)

    def _messages(self, seconds: float) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            while b"\0" in self._buffer:
                message, self._buffer = self._buffer.split(b"\0", 1)
                yield json.loads(message)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from_browser], [], [], left)[0]:
                raise AssertionError(f"the browser sent nothing for {seconds:g} s")
            data = os.read(self._from_browser, 1 << 20)
            if not data:
                raise AssertionError("the browser has ended")
            self._buffer += data

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result.

        Raises:
            PageGone: another page was loaded meanwhile.
            AssertionError: the browser reported an error or did not answer in time.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        for answer in self._messages(STEP_SECONDS):
            if answer.get("id") == number:
                if "error" in answer:
                    reason = str(answer["error"])
                    kind = PageGone if _GONE.search(reason) else AssertionError
                    raise kind(f"{method}: {reason}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)
        raise AssertionError("unreachable: _messages raises in the end")

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            if entry["level"] == "error":
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def open(self, url: str) -> None:
        """Load a page and wait until it is complete."""
        self.call("Page.navigate", url=url)
        self.wait_true(
            "document.readyState === 'complete' && location.href !== 'about:blank'"
        )

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page; await it if it is a promise.

        Returns:
            Its value, converted from JSON.

        Raises:
            AssertionError: the expression threw an exception.
        """
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_true(self, condition: str, seconds: float = 15.0) -> None:
        """Wait until an expression is true in the page.

        Raises:
            AssertionError: timeout; the message has the text of the page.
        """
        deadline = time.monotonic() + seconds
        while not self._is_true(condition):
            if time.monotonic() > deadline:
                text = self.run("document.body.innerText")
                raise AssertionError(f"never true: {condition}\n{text}")
            time.sleep(0.02)

    def _is_true(self, condition: str) -> bool:
        try:
            return bool(self.run(f"Boolean({condition})"))
        except PageGone:
            return False  # the condition may become true on the page that replaces it

    def screenshot(self) -> bytes:
        """Return a screenshot of the whole page as PNG."""
        shot = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True
        )
        return base64.b64decode(shot["data"])
