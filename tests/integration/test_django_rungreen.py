"""`manage.py rungreen`, run as a developer runs it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, is_alive, wait_for

if TYPE_CHECKING:
    from unittest import TestCase

SECONDS = 30.0

MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""

SETTINGS = """
from pathlib import Path
HERE = Path(__file__).parent
SECRET_KEY = "nothing is signed here"
DEBUG = True
ALLOWED_HOSTS = []
INSTALLED_APPS = ["django.contrib.staticfiles", "txgreenwsgi.django"]
ROOT_URLCONF = "urls"
STATIC_URL = "static/"
STATICFILES_DIRS = [HERE / "assets"]
DATABASES = {"default": {
    "ENGINE": "txgreenwsgi.django.backends.sqlite3", "NAME": HERE / "db.sqlite3",
}}
"""

URLS = """
import asyncio, time
from django.db import connection
from django.http import HttpResponse
from django.urls import path
from twisted.internet import reactor

def home(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 40 + 2")
        return HttpResponse(f"hello {cursor.fetchone()[0]} {type(reactor).__name__}")

def slow(request):
    time.sleep(1)
    return HttpResponse("slept")

async def later(request):
    await asyncio.sleep(0.1)
    return HttpResponse("later")

def broken(request):
    raise RuntimeError("a view that fails")

def stuck(request):
    time.sleep(100)

urlpatterns = [
    path("", home), path("slow", slow), path("later", later),
    path("broken", broken), path("stuck", stuck),
]
"""


class Project:
    """A Django project in a directory of its own, and its `manage.py`."""

    def __init__(self, test: TestCase) -> None:
        made = tempfile.TemporaryDirectory(prefix="rungreen-")
        test.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        (self.folder / "assets").mkdir()
        self.write("manage.py", MANAGE)
        self.write("settings.py", SETTINGS)
        self.write("urls.py", URLS)
        self.write("assets/style.css", "body {}")
        self._log = self.folder / "log"
        self._test = test
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, name: str, text: str) -> None:
        """Write one of its files."""
        (self.folder / name).write_text(text, "utf-8")

    def words(self, *arguments: str) -> list[str]:
        """Return the command line of `manage.py`."""
        return [sys.executable, "manage.py", *arguments]

    @property
    def environ(self) -> dict[str, str]:
        """The environment, in which the project can import this checkout."""
        return {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.words(*arguments),
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *arguments: str) -> str:
        """Start `rungreen` and return the URL that it reports."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self.words("rungreen", *arguments),
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A background job of a shell ignores SIGINT, and so would this one.
                preexec_fn=lambda: (
                    signal.signal(signal.SIGINT, signal.SIG_DFL) and None
                ),
            )
        self._test.addCleanup(self._end)
        return self.wait_started(1)

    def _end(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            # The process and its children are a session of their own.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        """Return everything that it has written."""
        return self._log.read_text("utf-8", "replace")

    def wait_logged(self, pattern: str, times: int = 1) -> list[str]:
        """Wait for a number of matches in the log; return the matches."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            found: list[str] = re.findall(pattern, self.log())
            if len(found) >= times:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} does not match {times} times:\n{self.log()}")

    def wait_started(self, times: int) -> str:
        """Wait for a number of starts; return the URL."""
        found = self.wait_logged(r"server at (http://\S+/)\n[^\0]*?CONTROL-C", times)
        return found[-1]

    def wait_ended(self) -> int:
        """Wait until it has ended and return its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process does not end:\n{self.log()}") from None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def children(self) -> list[int]:
        """Return the process ids of its children that are alive.

        Without the guardian, which is its child until it has started.
        """
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children: list[int] = []
        for pid in path.read_text("ascii").split():
            with contextlib.suppress(FileNotFoundError):  # it has ended
                if b"guardian" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    children.append(int(pid))
        return children


def fetch(url: str) -> tuple[int, str]:
    """Return the status and the text of a URL."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class RunGreenTests(SynchronousTestCase):
    """The command."""

    def setUp(self) -> None:
        """Create a project."""
        self.project = Project(self)

    def test_serves(self) -> None:
        """It reports its URL and serves pages, static files and `async` views.

        It writes a line for each request, as `runserver` does. A failed view is
        answered with Django's debug page.
        """
        url = self.project.start("0")
        self.assertIn("System check identified no issues", self.project.log())
        self.assertIn("using settings 'settings'", self.project.log())
        status, text = fetch(url)
        self.assertEqual((status, text[:9]), (200, "hello 42 "))
        self.assertEqual(fetch(f"{url}later"), (200, "later"))
        self.assertEqual(fetch(f"{url}static/style.css"), (200, "body {}"))
        status, text = fetch(f"{url}broken")
        self.assertEqual(status, 500)
        self.assertIn("a view that fails", text)
        self.project.wait_logged(r'"GET / HTTP/1.1" 200 \d+')
        self.project.wait_logged(r'"GET /broken HTTP/1.1" 500 \d+')

    def test_concurrency(self) -> None:
        """Views that call `time.sleep` overlap."""
        url = self.project.start("0", "--noreload")
        host, port = "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])
        fetch(url)
        began = time.monotonic()
        clients = []
        for _ in range(20):
            client = socket.create_connection((host, port), SECONDS)
            client.sendall(b"GET /slow HTTP/1.0\r\nHost: localhost\r\n\r\n")
            clients.append(client)
        for client in clients:
            with client:
                self.assertIn(b" 200 ", client.recv(100))
        self.assertLess(time.monotonic() - began, 15)  # of 20 seconds

    def test_reload(self) -> None:
        """It restarts when a file changes, after an error in the code too."""
        self.project.start("0")
        self.project.write("urls.py", URLS.replace("hello", "changed"))
        url = self.project.wait_started(2)
        self.assertEqual(fetch(url)[1][:10], "changed 42")
        self.project.write("urls.py", "this is no Python")
        self.project.wait_logged("Waiting for a file to change")
        self.assertIn("SyntaxError", self.project.log())
        self.project.write("urls.py", URLS.replace("hello", "mended"))
        url = self.project.wait_started(3)
        self.assertEqual(fetch(url)[1][:9], "mended 42")
        self.project.signal(signal.SIGTERM)
        self.assertEqual(self.project.wait_ended(), 0)

    def test_stop(self) -> None:
        """SIGTERM and SIGINT end it and its children, even during a stuck view."""
        for number in (signal.SIGTERM, signal.SIGINT):
            for options in ([], ["--noreload"]):
                project = Project(self)
                url = project.start("0", *options)
                # A guardian that has only been forked looks like its parent.
                count = 0 if options else 1
                wait_for(
                    lambda count=count, project=project: (  # type: ignore[misc]
                        len(project.children()) == count
                    ),
                    f"{count} children",
                )
                children = project.children()
                port = int(url.rstrip("/").rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(b"GET /stuck HTTP/1.0\r\nHost: localhost\r\n\r\n")
                    time.sleep(0.2)
                    project.signal(number)
                    self.assertEqual(project.wait_ended(), 0, project.log())
                for child in children:
                    self.assertFalse(Path(f"/proc/{child}").exists())

    def test_watcher_killed(self) -> None:
        """If the watching process is killed, the serving process ends as well."""
        self.project.start("0")
        (child,) = self.project.children()
        self.project.signal(signal.SIGKILL)
        self.project.wait_ended()
        wait_for(lambda: not is_alive(child), "the end of the serving one", SECONDS)

    def test_addresses(self) -> None:
        """It takes addresses in the forms of `runserver`."""
        for given, expected in (
            ("127.0.0.1:0", "http://127.0.0.1:"),
            ("localhost:0", "http://localhost:"),
            ("0:0", "http://0.0.0.0:"),
            ("[::1]:0", "http://[::1]:"),
        ):
            project = Project(self)
            url = project.start(given, "--noreload")
            self.assertTrue(url.startswith(expected), url)
            self.assertEqual(fetch(url.replace("0.0.0.0", "127.0.0.1"))[0], 200)
            project.signal(signal.SIGTERM)
            project.wait_ended()

    def test_reactor(self) -> None:
        """`--reactor=asyncio` serves the same: the ORM and `async` views."""
        url = self.project.start("0", "--noreload", "--reactor=asyncio")
        self.assertEqual(fetch(url), (200, "hello 42 AsyncioSelectorReactor"))
        self.assertEqual(fetch(f"{url}later"), (200, "later"))

    def test_module(self) -> None:
        """`python -m django rungreen` does the same as `manage.py`."""
        self.project.write("other.py", "")

        def words(*arguments: str) -> list[str]:
            return [sys.executable, "-m", "django", *arguments, "--settings=settings"]

        self.project.words = words  # type: ignore[method-assign]
        url = self.project.start("0")
        self.assertEqual(fetch(url)[0], 200)

    def test_refusals(self) -> None:
        """Unsupported settings are reported in one line, without a traceback."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            for arguments, text in (
                ([port], "Error: That port is already in use."),
                ([port, "--noreload"], "Error: That port is already in use."),
                (["nonsense"], "is not a valid port number or address:port pair"),
                (["--reactor=steam"], "--reactor 'steam': unknown reactor"),
                (["--patch=sockets"], "--patch 'sockets': 'sockets' cannot be patched"),
            ):
                done = self.project.run("rungreen", *arguments)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(text, done.stderr)
                self.assertNotIn("Traceback", done.stderr)

    def test_checks(self) -> None:
        """Django's system checks report invalid pool options before it serves."""
        bad = SETTINGS.replace(
            '"NAME"', '"OPTIONS": {"green_pool": {"big": 1}}, "NAME"'
        )
        self.project.write("settings.py", bad)
        done = self.project.run("rungreen", "0", "--noreload")
        self.assertEqual(done.returncode, 1)
        self.assertIn("has the unknown key 'big': use max_size", done.stderr)

    def test_other_commands(self) -> None:
        """`check`, `migrate` and other commands work with the pooled backends."""
        for command in (["check"], ["migrate"], ["inspectdb"], ["showmigrations"]):
            done = self.project.run(*command)
            self.assertEqual(done.returncode, 0, done.stderr)
