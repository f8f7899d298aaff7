"""The status page and `txgreenwsgi top`, with real servers and a browser."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest

from .browser import NAMES, Browser, find_browser
from .processes import CHECKOUT, LOOPBACK, STOP_SECONDS, Answer
from .test_control import ControlCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from .test_workers import Workers

APP = "tests.integration.status_app:app"
TOKEN = "a-secret-of-the-operator"
#: Markup in the path, with the escapes that a client sends.
HOSTILE_PATH = "/wait/%3Cimg%20src=x%20onerror=document.title=%27hacked%27%3E"
HOSTILE_TEXT = "/wait/<img src=x onerror=document.title='hacked'>"


class StatusCase(ControlCase):
    """Tests with a status page."""

    def serve_page(self, workers: int, *options: str, **keywords: Any) -> Workers:
        """Start a server with a status page, and wait until it is ready."""
        words = [f"--workers={workers}"] if workers else []
        server = self.begin(
            f"--app={APP}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            f"--control={self.path}",
            f"--status=tcp:{LOOPBACK}:0",
            *words,
            *options,
            **keywords,
        )
        if workers:
            server.wait_ready(workers)
        else:
            server.wait_listening()
        pattern = r"--status: listening on http://\S+:(\d+)/"
        server.wait_logged(pattern)
        found = re.search(pattern, server.log())
        assert found is not None, server.log()
        self.page_port = int(found[1])
        return server

    def page(
        self, path: str = "/", method: str = "GET", body: str = "", **fields: str
    ) -> Answer:
        """Return a page."""
        connection = http.client.HTTPConnection(LOOPBACK, self.page_port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, fields)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def snapshot(self) -> Any:
        """Return a snapshot."""
        return json.loads(self.page("/snapshot.json").body)

    def wait_snapshot(self, condition: Callable[[Any], object]) -> Any:
        """Wait for a snapshot that meets a condition, and return it."""
        end = time.monotonic() + STOP_SECONDS
        while True:
            found = self.snapshot()
            if condition(found):
                return found
            self.assertLess(time.monotonic(), end, found)
            time.sleep(0.2)


def requests_in(found: Any) -> list[Any]:
    """Return the requests in flight of a snapshot."""
    return [row for each in found["workers"] for row in each["in_flight"] or ()]


class ServerTests(StatusCase):
    """The page of a single process, and of a master with workers."""

    def check_page(self, workers: int) -> None:
        """Check what the page shows of requests, routes, blocks and failures."""
        server = self.serve_page(workers)
        self.snapshot()  # routes are collected from now on
        self.request(server, HOSTILE_PATH)
        found = self.wait_snapshot(requests_in)
        (row,) = requests_in(found)
        self.assertEqual(row["path"], HOSTILE_TEXT)
        self.assertEqual(row["waiting_on"], "sleep(60)")
        self.assertLessEqual(row["waiting_seconds"], row["age"])
        for path in ("/orders/1", "/orders/2", "/busy/0.6"):
            self.assertEqual(server.fetch(path).status, 200)
        for path in ("/fail", "/flask/1", "/flask/2", "/django/1"):
            self.assertEqual(server.fetch(path).status, 500)
        found = self.wait_snapshot(lambda found: len(found["failures"]) == 3)
        routes = {route["pattern"]: route for route in found["routes"]}
        self.assertEqual(routes["/orders/*"]["requests"], 2)
        self.assertEqual(routes["/flask/*"]["failures"], 2)
        self.assertGreater(routes["/busy/0.6"]["mean"], 0.5)
        found = self.wait_snapshot(lambda found: found["blocked"])
        self.assertIn("status_app.py", found["blocked"][0]["filename"])
        failures = {failure["error"]: failure for failure in found["failures"]}
        self.assertEqual(
            {error: failure["count"] for error, failure in failures.items()},
            {
                "ZeroDivisionError: division in the view": 1,
                "LookupError: no flask object 2": 2,
                "ArithmeticError: no django object 1": 1,
            },
        )
        flask = failures["LookupError: no flask object 2"]
        self.assertIn("in flask_view", flask["place"])
        self.assertEqual((flask["method"], flask["path"]), ("GET", "/flask/2"))
        page = self.page().text
        self.assertIn("/wait/&lt;img src=x onerror=", page)
        self.assertNotIn("<img", page)
        stack = self.page(f"/requests/{row['request_id']}").text
        self.assertIn("time.sleep(60)", stack)
        self.assertNotIn("<form", stack)
        trace = self.page(f"/failures/{flask['failure_id']}").text
        self.assertIn("raise LookupError(", trace)
        self.assertIn("thread ", self.page("/workers/1").text)
        answer = self.page(f"/requests/{row['request_id']}/cancel", "POST", "form=x")
        self.assertEqual(answer.status, 403)
        server.kill_all()

    def test_single_process(self) -> None:
        """A single process shows its own requests."""
        self.check_page(0)

    def test_workers(self) -> None:
        """A master shows those of all workers."""
        self.check_page(2)

    def test_cancel(self) -> None:
        """With --status-cancel, the form of a request's page cancels it."""
        server = self.serve_page(2, "--status-cancel")
        client = socket.create_connection((LOOPBACK, server.port), 30)
        self.addCleanup(client.close)
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (row,) = requests_in(self.wait_snapshot(requests_in))
        address = f"/requests/{row['request_id']}"
        found = re.search(r'name="form" value="([^"]+)"', self.page(address).text)
        assert found is not None
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.page(f"{address}/cancel", "POST", f"form={found[1]}", **kind)
        self.assertEqual(answer.status, 200)
        self.assertTrue(client.recv(1000).startswith(b"HTTP/1.1 503 "))
        self.wait_snapshot(lambda found: not requests_in(found))
        self.assertEqual(self.page(address).status, 404)
        server.kill_all()

    def test_blocked_worker(self) -> None:
        """The page answers while a worker is blocked, and names its request."""
        server = self.serve_page(2)
        self.request(server, "/busy/30")

        def blocked(found: Any) -> list[Any]:
            return [
                each
                for each in found["workers"]
                if each["in_flight"] is None and each["current"]
            ]

        (worker,) = blocked(self.wait_snapshot(blocked))
        self.assertIn("GET /busy/30", worker["current"])
        self.assertIn("blocked", self.page().text)
        server.kill_all()

    def test_stop(self) -> None:
        """An open page does not delay the end of the server, and ends with it."""
        for workers in (0, 1):
            server = self.serve_page(workers)
            page = socket.create_connection((LOOPBACK, self.page_port), 30)
            self.addCleanup(page.close)
            page.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            data = b""
            while b"data: <header>" not in data:
                data += page.recv(65536)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(STOP_SECONDS), 0)
            self.assertLess(time.monotonic() - began, STOP_SECONDS / 2)
            with contextlib.suppress(ConnectionResetError):
                while page.recv(65536):
                    pass
            self.assertNotIn("Traceback", server.log())

    def test_token(self) -> None:
        """On an address that others reach, the page needs a token."""
        options = [f"--app={APP}", "--status=tcp:0"]
        server = self.begin(*options)
        self.assertEqual(server.process.wait(STOP_SECONDS), 1)
        self.assertIn("can be reached from other machines", server.log())
        server = self.serve_page(0, environ={"TXGREENWSGI_STATUS_TOKEN": TOKEN})
        self.assertEqual(self.page().status, 401)
        self.assertEqual(self.page(Authorization=f"Bearer {TOKEN}").status, 200)
        self.assertNotIn(TOKEN, server.log())
        server.kill_all()

    def test_address_in_use(self) -> None:
        """An address that is in use ends the start, with the option in the error."""
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            server = self.begin(f"--app={APP}", f"--status=tcp:{LOOPBACK}:{port}")
            self.assertEqual(server.process.wait(STOP_SECONDS), 1)
        self.assertIn("--status", server.log())
        self.assertIn("in use", server.log())


class BrowserTests(StatusCase):
    """The page in Chromium."""

    def setUp(self) -> None:
        """Open a browser."""
        super().setUp()
        executable = find_browser()
        if executable is None:
            raise SkipTest(f"no browser is installed: none of {', '.join(NAMES)}")
        self.browser = Browser(self, executable)

    def open(self, width: int = 1200, *, dark: bool = False) -> None:
        """Load the page."""
        self.browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.browser.call(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            ],
        )
        self.browser.open(f"http://{LOOPBACK}:{self.page_port}/")

    def text(self) -> str:
        """Return the text of the page."""
        return str(self.browser.run("document.body.innerText"))

    def test_live(self) -> None:
        """The page follows the server without being loaded again, and stays safe."""
        server = self.serve_page(2)
        self.open()
        self.browser.run("window.isSame = true")
        self.request(server, HOSTILE_PATH)
        self.browser.wait_true("document.body.innerText.includes('/wait/<img')")
        for number in range(3):
            server.fetch(f"/orders/{number}")
        server.fetch("/fail")
        self.browser.wait_true("document.body.innerText.includes('GET /orders/*')")
        self.browser.wait_true("document.body.innerText.includes('ZeroDivisionError')")
        self.assertTrue(self.browser.run("window.isSame"))
        self.assertIn("Status of", self.browser.run("document.title"))
        self.assertEqual(self.browser.run("document.images.length"), 0)
        # An element stays when its text changes, so a selection and the focus do.
        self.browser.run("window.age = document.querySelector('#status td.n')")
        self.browser.run("window.then = document.querySelector('.facts').innerText")
        self.browser.wait_true(
            "document.querySelector('.facts').innerText !== window.then"
        )
        self.assertTrue(
            self.browser.run("window.age === document.querySelector('#status td.n')")
        )
        self.assertTrue(self.browser.screenshot().startswith(b"\x89PNG"))
        self.browser.run("document.querySelector('a[href^=requests]').click()")
        self.browser.wait_true("document.body?.innerText.includes('time.sleep(60)')")
        self.assertEqual(self.browser.complaints, [])
        server.kill_all()

    def test_server_ends(self) -> None:
        """The page says that the server does not answer, and recovers."""
        server = self.serve_page(0)
        self.open()
        self.browser.wait_true("document.getElementById('connection').hidden")
        os.kill(server.pid, signal.SIGSTOP)
        self.browser.wait_true("!document.getElementById('connection').hidden", 30)
        os.kill(server.pid, signal.SIGCONT)
        self.browser.wait_true("document.getElementById('connection').hidden", 30)
        server.kill_all()

    def test_hidden(self) -> None:
        """A page in a hidden tab does not use the server."""
        server = self.serve_page(0)
        self.open()
        self.browser.wait_true("document.getElementById('connection').hidden")
        self.browser.run(
            "Object.defineProperty(document, 'hidden', {value: true}),"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        log = "performance.getEntriesByName(new URL('events', location).href).length"
        self.browser.wait_true(f"{log} === 1")
        server.kill_all()

    def test_narrow_and_dark(self) -> None:
        """On a phone, nothing is wider than the screen; dark mode has dark colours."""
        server = self.serve_page(1)
        self.request(server, "/wait/" + "x" * 500)
        self.wait_snapshot(requests_in)
        for width in (390, 1200):
            for dark in (False, True):
                self.open(width, dark=dark)
                self.assertLessEqual(
                    self.browser.run("document.documentElement.scrollWidth"), width
                )
                color = self.browser.run(
                    "getComputedStyle(document.body).backgroundColor"
                )
                numbers = list(map(int, re.findall(r"\d+", color)))
                self.assertEqual(max(numbers[:3]) < 80, dark, color)
        server.kill_all()

    def test_without_script(self) -> None:
        """Without JavaScript, the page shows the same, and loads itself again."""
        server = self.serve_page(0)
        self.browser.call("Emulation.setScriptExecutionDisabled", value=True)
        self.browser.call("Page.navigate", url=f"http://{LOOPBACK}:{self.page_port}/")
        self.request(server, "/wait/static")
        end = time.monotonic() + STOP_SECONDS
        html = ""
        while "/wait/static" not in html:
            self.assertLess(time.monotonic(), end, html)
            time.sleep(0.5)
            root = self.browser.call("DOM.getDocument")["root"]["nodeId"]
            # The page may be loaded again between the two calls.
            with contextlib.suppress(AssertionError):
                answer = self.browser.call("DOM.getOuterHTML", nodeId=root)
                html = answer["outerHTML"]
        server.kill_all()

    def test_login(self) -> None:
        """The token opens the page, and stays in a cookie."""
        server = self.serve_page(0, environ={"TXGREENWSGI_STATUS_TOKEN": TOKEN})
        self.open()
        self.browser.run(
            f"document.querySelector('input').value = '{TOKEN}',"
            "document.querySelector('form').submit()"
        )
        self.browser.wait_true(
            "document.body?.innerText.includes('Requests in flight')"
        )
        self.open()
        self.assertIn("Requests in flight", self.text())
        self.assertNotIn(TOKEN, self.browser.run("document.cookie + location.href"))
        server.kill_all()


class TopTests(StatusCase):
    """`txgreenwsgi top`."""

    def test_once(self) -> None:
        """The status is printed once, as text or as JSON, without an access page."""
        for workers in (0, 2):
            server = self.serve_page(workers)
            self.request(server, "/wait/%C3%A4%1b[2J")
            self.wait_snapshot(requests_in)
            done = self.command("top", "--once", "--interval", "0.3")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("req/s", done.stdout)
            self.assertIn("sleep(60)", done.stdout)
            self.assertNotIn("\x1b", done.stdout)
            found = self.answer("top", "--interval", "0.3")
            (row,) = requests_in(found)
            self.assertEqual(row["waiting_on"], "sleep(60)")
            self.assertIn("rate", found)
            server.kill_all()
            done = self.command("top", "--once")
            self.assertEqual(done.returncode, 1)
            self.assertIn("txgreenwsgi top: ", done.stderr)

    def test_narrow_encoding(self) -> None:
        """Where the output is ASCII, so is the text."""
        server = self.serve_page(0)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "txgreenwsgi", "top", "--once"),
                *("--control", self.path, "--interval", "0.2"),
            ],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=90,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.isascii())
        server.kill_all()

    def test_terminal(self) -> None:
        """On a terminal, keys select requests, show stacks and cancel; q ends."""
        server = self.serve_page(2, "--status-cancel")
        self.request(server, "/wait/first")
        self.wait_snapshot(lambda found: len(requests_in(found)) == 1)
        self.request(server, "/wait/second")
        self.wait_snapshot(lambda found: len(requests_in(found)) == 2)
        server.fetch("/fail")
        screen = Terminal(self, ["top", "--interval", "0.3", "--control", self.path])
        screen.wait("/wait/second")
        screen.wait("ZeroDivisionError")
        screen.press("j")
        screen.wait("\x1b[7m")
        screen.press("\r")
        screen.wait("time.sleep(60)")
        screen.press("\r")
        screen.wait("q quit")
        screen.press("c")
        screen.wait("y/n")
        screen.press("y")
        screen.wait("cancelled ")
        (row,) = requests_in(
            self.wait_snapshot(lambda found: len(requests_in(found)) == 1)
        )
        self.assertEqual(row["path"], "/wait/first")
        screen.press("\t")
        screen.press("\r")
        screen.wait("division in the view")
        screen.press("\r")
        screen.press("q")
        self.assertEqual(screen.end(), 0)
        server.kill_all()

    def test_server_ends(self) -> None:
        """The screen says that the server has ended, and goes on."""
        server = self.serve_page(0)
        screen = Terminal(self, ["top", "--interval", "0.2", "--control", self.path])
        screen.wait("req/s")
        server.kill_all()
        screen.wait("no server is running")
        screen.press("q")
        self.assertEqual(screen.end(), 0)


class Terminal:
    """A command on a terminal of 80 columns and 24 rows.

    Args:
        test: its cleanup ends the command.
        words: the arguments of `txgreenwsgi`.
    """

    def __init__(self, test: StatusCase, words: list[str]) -> None:
        self._test = test
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._before = termios.tcgetattr(inner)
        variables = {**os.environ, "TERM": "xterm", "PYTHONUTF8": "1"}
        variables.pop("COLUMNS", None)
        variables.pop("LINES", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "txgreenwsgi", *words],
            cwd=CHECKOUT,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=variables,
            start_new_session=True,
        )
        self._inner = inner
        test.addCleanup(self._close)
        self._unseen = ""

    def _close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
        os.close(self._inner)

    def press(self, keys: str) -> None:
        """Type."""
        self._unseen = ""
        os.write(self._fd, keys.encode())

    def _read(self, seconds: float) -> None:
        if select.select([self._fd], [], [], seconds)[0]:
            self._unseen += os.read(self._fd, 65536).decode("utf-8", "replace")

    def wait(self, text: str) -> None:
        """Wait until a text is drawn, since the last key."""
        end = time.monotonic() + STOP_SECONDS
        while text not in self._unseen:
            self._read(0.2)
            if time.monotonic() > end or self._process.poll() is not None:
                raise AssertionError(f"{text!r} is not drawn: {self._unseen!r}")

    def end(self) -> int:
        """Return the exit status, after which the terminal is as before."""
        end = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            self._read(0.1)
        # A read returns a part of what the process has written before its end.
        while select.select([self._fd], [], [], 0)[0]:
            self._read(0)
        self._test.assertTrue(self._unseen.endswith("\x1b[?1049l"), self._unseen[-80:])
        self._test.assertEqual(termios.tcgetattr(self._inner), self._before)
        return self._process.wait(1)
