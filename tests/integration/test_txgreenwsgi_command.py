"""The command `txgreenwsgi`: starts, log lines and ends, as a user sees them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import TestCase

from tests.folders import short_folder
from txgreenwsgi import _native

from .processes import LOOPBACK, START_SECONDS, STOP_SECONDS, Server, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE = (sys.executable, "-m", "txgreenwsgi")
SCRIPT = (str(Path(sys.executable).parent / "txgreenwsgi"),)
LISTEN = f"--listen=tcp:0:interface={LOOPBACK}"

APP = """
import logging
import threading
import traceback

from twisted.logger import Logger
from txgreenwsgi import offload

logging.basicConfig(level=logging.INFO)

def app(environ, start_response):
    request_id = environ["txgreenwsgi.request_id"]
    print("printed")
    logging.getLogger("shop").info("from logging")
    Logger("shop").info("from Twisted")
    environ["wsgi.errors"].write("from wsgi.errors\\n")
    offload(print, "from a thread")
    try:
        {}["missing"]
    except KeyError:
        logging.exception("caught")
        traceback.print_exc()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [request_id.encode()]

print("imported")
"""

DJANGO_APP = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import path

settings.configure(
    DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x"
)

def view(request):
    {}["missing"]

urlpatterns = [path("", view)]
app = get_wsgi_application()
"""

TEXTS = (
    *("printed", "from logging", "from Twisted", "from wsgi.errors"),
    *("from a thread", "caught", "Traceback (most recent call last):"),
)


class Foreground(Server):
    """A `txgreenwsgi` process.

    Args:
        command: the program, with its first arguments.
        arguments: the other arguments.
        directory: the working directory.
        terminal: whether standard output is a terminal.
    """

    def __init__(
        self,
        command: Sequence[str],
        *arguments: str,
        directory: Path,
        terminal: bool = False,
    ) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        self._terminal = -1
        output: int = self._log.fileno()
        if terminal:
            self._terminal, output = pty.openpty()
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        if terminal:
            os.close(output)
            os.set_blocking(self._terminal, False)
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port in the line about the start."""
        return self._port

    def log(self) -> str:
        """Return everything that the process has written so far."""
        while self._terminal >= 0:
            try:
                data = os.read(self._terminal, 65536)
            except BlockingIOError:
                break
            except OSError:  # the process has ended
                data = b""
            if not data:
                os.close(self._terminal)
                self._terminal = -1
                break
            self._log.seek(0, os.SEEK_END)
            self._log.write(data.replace(b"\r\n", b"\n"))
        size = os.fstat(self._log.fileno()).st_size
        if self._terminal >= 0:
            self._log.flush()
            size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def wait_started(self) -> str:
        """Return the line about the start."""
        return self.wait_logged(r"^.*txgreenwsgi \S+ serves .*\n")

    def wait_logged(self, pattern: str) -> str:
        """Wait for a line that matches, and return it.

        Raises:
            AssertionError: timeout, or the process has ended.
        """
        end = time.monotonic() + START_SECONDS
        while True:
            log = self.log()
            found = re.search(pattern, log, re.MULTILINE)
            if found:
                address = re.search(r"http://[^/]+:([0-9]+)/", log)
                self._port = int(address[1]) if address else 0
                return found[0]
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{pattern!r} is not in {self.log()}")
            time.sleep(0.02)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        end = time.monotonic() + STOP_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            self.log()  # a terminal has a small buffer
            time.sleep(0.02)
        return self.process.wait(1)

    def kill(self) -> None:
        """Kill the process if it still runs, and delete its log."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._terminal >= 0:
            os.close(self._terminal)
        self._log.close()


class CommandTestCase(TestCase):
    """Tests with a directory that contains an application."""

    def setUp(self) -> None:
        """Write the application."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "shop.py").write_text(APP)
        (self.directory / "broken.py").write_text("1 / 0")

    def start(
        self, *arguments: str, command: Sequence[str] = MODULE, terminal: bool = False
    ) -> Foreground:
        """Start the command, and wait for the line about the start."""
        server = Foreground(
            command, *arguments, directory=self.directory, terminal=terminal
        )
        self.addCleanup(server.kill)
        server.wait_started()
        return server

    def run_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself."""
        return subprocess.run(
            [*MODULE, *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )


class ServeTests(CommandTestCase):
    """Servers that start."""

    def test_script_and_module(self) -> None:
        """The script and the module serve the application; SIGTERM gives status 0."""
        for command in (SCRIPT, MODULE):
            server = self.start("shop:app", LISTEN, command=command)
            self.assertEqual(server.fetch("/").status, 200)
            self.assertEqual(server.end(signal.SIGTERM), 0, server.log())
            self.assertFalse((self.directory / "twistd.pid").exists())

    def test_interrupted(self) -> None:
        """Ctrl-C ends the process by SIGINT, after an orderly shutdown."""
        server = self.start(LISTEN, "shop:app")
        self.assertEqual(server.end(signal.SIGINT), -signal.SIGINT, server.log())

    def test_start_line(self) -> None:
        """One line follows the import: version, application, URL and process id."""
        path = os.path.join(short_folder(self), "app.sock")
        server = self.start("shop:app", LISTEN, f"--listen=unix:{path}")
        line = server.wait_started()
        self.assertRegex(
            line,
            r" txgreenwsgi [0-9.]+\S* serves shop:app at http://127\.0\.0\.1:"
            rf"{server.port}/ unix:{path} \(pid {server.process.pid}; blocking "
            rf"paths in threads, at most 8; {re.escape(_native.description())}\)\n\Z",
        )
        log = server.log()
        self.assertLess(log.index("imported"), log.index(line))

    def test_options_of_twistd(self) -> None:
        """The reactor, the log and the pidfile are those of twistd."""
        server = Foreground(
            MODULE,
            *("shop:app", LISTEN, "--reactor=select", "--pidfile=web.pid"),
            "--log-file=web.log",
            directory=self.directory,
        )
        self.addCleanup(server.kill)
        log = self.directory / "web.log"
        end = time.monotonic() + START_SECONDS
        while not log.exists() or "serves shop:app" not in log.read_text():
            self.assertLess(time.monotonic(), end, server.log())
            time.sleep(0.02)
        self.assertIn("SelectReactor", log.read_text())
        pid = (self.directory / "web.pid").read_text()
        self.assertEqual(pid, str(server.process.pid))
        self.assertEqual(server.end(signal.SIGTERM), 0)
        self.assertFalse((self.directory / "web.pid").exists())

    def test_patched_from_the_start(self) -> None:
        """`python -m txgreenwsgi.patched txgreenwsgi` patches first."""
        server = self.start(
            *("txgreenwsgi", "shop:app", LISTEN),
            command=(sys.executable, "-m", "txgreenwsgi.patched"),
        )
        self.assertEqual(server.fetch("/").status, 200)
        self.assertEqual(server.end(signal.SIGTERM), 0, server.log())


class FailureTests(CommandTestCase):
    """Command lines that start no server."""

    def test_usage(self) -> None:
        """A wrong option has status 2, and two lines on standard error."""
        done = self.run_command("shop:app", "--bind", "0.0.0.0:80")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stdout, "")
        self.assertEqual(
            done.stderr,
            "txgreenwsgi: --bind is not an option: use --listen with an endpoint "
            "string: --listen tcp:80\ntxgreenwsgi --help lists the options\n",
        )

    def test_failed_starts(self) -> None:
        """A start that fails has status 1 and names the reason."""
        server = serve(self, "wsgiref.simple_server:demo_app")
        used = f"--listen=tcp:{server.port}:interface={LOOPBACK}"
        for words, reason in [
            (["broken", LISTEN], "ZeroDivisionError: division by zero"),
            (["shop:ap", LISTEN], "module shop has no ap; did you mean app?"),
            (["shop:app", used], "stop the process that uses this address"),
            (
                ["shop:app", "--listen=tcp:0:interface=203.0.113.1"],
                "no network interface of this machine has this address",
            ),
        ]:
            done = self.run_command(*words)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(reason, done.stdout + done.stderr)
            self.assertNotIn(" serves ", done.stdout)

    def test_help(self) -> None:
        """--help and --version have status 0."""
        done = self.run_command("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Usage: txgreenwsgi [SPEC] [options]", done.stdout)
        done = self.run_command("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("greenlet", done.stdout)


class LogTests(CommandTestCase):
    """The lines that a request causes."""

    def answered(self, server: Foreground) -> tuple[str, str]:
        """Send a request; return its id, and the log when all is written."""
        request_id = server.fetch("/").text
        self.assertEqual(server.end(signal.SIGTERM), 0, server.log())
        return request_id, server.log()

    def test_text(self) -> None:
        """In Twisted's format, every line of a request has its id once."""
        server = self.start("shop:app", LISTEN)
        request_id, log = self.answered(server)
        for text in TEXTS:
            lines = [line for line in log.splitlines() if text in line]
            self.assertTrue(lines, text)
            for line in lines:
                self.assertEqual(line.count(f"(request {request_id})"), 1, line)

    def test_development(self) -> None:
        """On a terminal, lines are short, and a traceback has one prefix."""
        server = self.start("shop:app", LISTEN, terminal=True)
        request_id, log = self.answered(server)
        suffix = f" (request {request_id})"
        lines = log.splitlines()
        for text in TEXTS[:-1]:
            (line,) = (line for line in lines if text in line)
            self.assertTrue(line.endswith(suffix), line)
            self.assertRegex(line, r"\A\d\d:\d\d:\d\d (info|error) [\w.]+: ")
        start = next(n for n, line in enumerate(lines) if "caught" in line)
        self.assertEqual(lines[start + 1], "    Traceback (most recent call last):")
        self.assertEqual(lines.count("    KeyError: 'missing'"), 2)
        for line in lines:
            self.assertEqual(line.count(suffix), int(suffix in line))
        self.assertNotIn("starting on", log)
        self.assertNotIn("Main loop", log)

    def test_workers(self) -> None:
        """Lines of workers have the name of the worker, and the same format."""
        server = self.start("shop:app", LISTEN, "--workers=1", terminal=True)
        request_id, log = self.answered(server)
        lines = log.splitlines()
        for text in TEXTS[:-1]:
            (line,) = (line for line in lines if text in line)
            self.assertTrue(line.endswith(f" (request {request_id})"), line)
            self.assertRegex(line, r"\A\d\d:\d\d:\d\d worker 1 (info|error) [\w.]+: ")
        self.assertEqual(lines.count("    KeyError: 'missing'"), 2)
        self.assertRegex(log, r" serves shop:app at .* \(1 worker, pid \d+, master ")

    def test_django(self) -> None:
        """The error that Django logs has the id of its request, and one prefix."""
        (self.directory / "site_app.py").write_text(DJANGO_APP)
        server = self.start("site_app:app", LISTEN, "--log-format=dev")
        self.assertEqual(server.fetch("/").status, 500)
        self.assertEqual(server.end(signal.SIGTERM), 0, server.log())
        lines = server.log().splitlines()
        start = next(n for n, line in enumerate(lines) if "Internal Server" in line)
        self.assertRegex(
            lines[start],
            r" error stderr: .*Internal Server Error: / \(request [0-9a-f]+-1\)\Z",
        )
        self.assertEqual(lines[start + 1], "    Traceback (most recent call last):")
        self.assertIn("    KeyError: 'missing'", lines)

    def test_json(self) -> None:
        """In JSON, each line is an object; those of a request have its id."""
        server = self.start("shop:app", LISTEN, "--log-format=json")
        request_id, log = self.answered(server)
        entries = [json.loads(line) for line in log.splitlines()]
        for text in TEXTS[:-1]:
            (entry,) = (one for one in entries if text in one["message"])
            self.assertEqual(entry["request_id"], request_id)
        self.assertEqual(entries[-1]["message"], "Server Shut Down.")
