"""The standard streams of an application under twistd and twist."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from tests.folders import short_folder

from .processes import LOOPBACK, TWISTD, serve, start
from .test_command import TWIST, CommandTestCase

if TYPE_CHECKING:
    from pathlib import Path

OPERATIONS = '''
import faulthandler, io, os, subprocess, sys, threading
import txgreenwsgi

out, err = sys.stdout, sys.stderr
AT_IMPORT = isinstance(out, io.TextIOWrapper) and isinstance(err, io.TextIOWrapper)

def failures():
    """Return the operations that fail, as text."""
    failed = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        for operation in (
            lambda: stream.buffer.write(b""),
            lambda: stream.reconfigure(line_buffering=True),
            lambda: os.fstat(stream.fileno()),
            lambda: faulthandler.enable(stream),
            lambda: subprocess.run(["echo", "child " + name], stdout=stream),
            lambda: subprocess.run(["true"], stderr=stream),
            lambda: os.close(os.dup(stream.fileno())),
            lambda: (stream.errors, stream.newlines, stream.name, stream.isatty()),
            lambda: print("\\u00e9\\ud800", file=stream),
            lambda: io.TextIOWrapper(stream.buffer, "utf-8").write("wrapped\\n"),
        ):
            try:
                operation()
            except Exception as error:
                failed.append(f"{name}: {error!r}")
    return failed

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if not AT_IMPORT:
        return [b"no text streams at import"]
    print("request", environ["txgreenwsgi.request_id"])
    txgreenwsgi.offload(print, "off-loaded")
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
    print("unfinished", end="")
    return ["\\n".join(failures()).encode()]
'''

#: A log observer that writes to the streams that are redirected to the log.
OBSERVER = """
import sys
from zope.interface import implementer
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher

@implementer(ILogObserver)
def observe(event):
    print("observed", formatEvent(event), file=sys.stderr)

globalLogPublisher.addObserver(observe)

def app(environ, start_response):
    print("printed")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x"]
"""


class StandardStreamTests(CommandTestCase):
    """An application that uses everything that a text stream has."""

    def setUp(self) -> None:
        """Write the application."""
        super().setUp()
        (self.directory / "stream_app.py").write_text(OPERATIONS)
        (self.directory / "observing_app.py").write_text(OBSERVER)
        self.options = (
            "greenwsgi",
            "--app=stream_app",
            f"--chdir={self.directory}",
            f"--listen=tcp:0:interface={LOOPBACK}",
        )

    def check_lines(self, log: str) -> None:
        """Fail unless a log has the printed lines with the id of their request."""
        [request_id] = re.findall(r"request (\S+) \(request \1\)$", log, re.MULTILINE)
        for line in ("off-loaded", "unfinished", "wrapped", "é\\ud800"):
            pattern = rf"{re.escape(line)} \(request (.*)\)$"
            found = re.findall(pattern, log, re.MULTILINE)
            self.assertEqual(set(found), {request_id}, line)
        # A thread may work for many requests, so its lines have no id.
        self.assertRegex(log, r"(?m)from a thread$")
        self.assertNotIn("Traceback", log)

    def start_daemon(self, *options: str) -> tuple[Path, int]:
        """Start the application as a daemon; return its socket and its process id."""
        path = short_folder(self) / "socket"
        arguments = *self.options[:-1], f"--listen=unix:{path}"
        status, output = self.run_command(
            (*TWISTD, "--pidfile=d.pid", *options), *arguments
        )
        self.assertEqual(status, 0, output)
        pid = int(self.wait_for(self.directory / "d.pid", ""))
        self.addCleanup(kill_if_running, pid)
        return path, pid

    def fetch(self, path: Path) -> str:
        """Return the body of a response on a UNIX socket."""
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
        self.assertIn(b" 200 OK\r\n", received)
        return received.partition(b"\r\n\r\n")[2].decode()

    def test_foreground(self) -> None:
        """With -n, lines go to the log, and child processes write beside it."""
        server = start(self, *self.options)
        self.assertEqual(server.fetch("/").text, "")
        server.wait_logged("unfinished")
        self.check_lines(server.log())
        self.assertIn("child stdout\n", server.log())
        self.assertIn("child stderr\n", server.log())

    def test_foreground_with_a_log_file(self) -> None:
        """With -n and --logfile, child processes write to the original streams."""
        log = self.directory / "n.log"
        process = subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", f"--logfile={log}", *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        text = self.wait_for(log, "GreenSite starting on ")
        port = re.findall(r" starting on (\d+)$", text, re.MULTILINE)[0]
        with socket.create_connection((LOOPBACK, int(port)), 30) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            received = b"".join(iter(lambda: client.recv(65536), b""))
        self.assertTrue(received.endswith(b"\r\n\r\n"), received)
        self.check_lines(self.wait_for(log, "unfinished"))
        process.terminate()
        output = process.stdout.read()
        self.assertEqual(output, b"child stdout\nchild stderr\n")

    def test_daemon(self) -> None:
        """The log of a daemon has all output, in order, after a rotation too."""
        path, pid = self.start_daemon("--logfile=d.log")
        log = self.directory / "d.log"
        self.assertEqual(self.fetch(path), "")
        text = self.wait_for(log, "unfinished")
        self.check_lines(text)
        self.assertIn("\nchild stdout\n", text)
        self.assertIn("\nchild stderr\n", text)
        log.rename(self.directory / "d.log.1")
        log.touch()
        self.assertEqual(self.fetch(path), "")
        self.wait_for(log, "child stdout\nchild stderr\n")
        os.kill(pid, signal.SIGTERM)
        rotated = self.wait_for(self.directory / "d.log.1", "Server Shut Down.")
        self.assertNotIn("\0", rotated)
        self.assertEqual(rotated.count("child"), 2)

    def test_crash_of_a_daemon(self) -> None:
        """`faulthandler` writes the stack of a daemon that crashes to its log."""
        path, pid = self.start_daemon("--logfile=d.log")
        self.assertEqual(self.fetch(path), "")
        os.kill(pid, signal.SIGSEGV)
        text = self.wait_for(self.directory / "d.log", "Segmentation fault")
        self.assertIn("unfinished", text)

    def test_syslog(self) -> None:
        """A daemon that logs to syslog has descriptors, too."""
        path, _ = self.start_daemon("--syslog")
        self.assertEqual(self.fetch(path), "")

    def test_twist(self) -> None:
        """Twist redirects the streams later than twistd."""
        process = subprocess.Popen(
            [*TWIST, "--log-format=text", *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        for line in process.stdout:
            if found := re.search(r" starting on (\d+)$", line):
                break
        assert found is not None
        with socket.create_connection((LOOPBACK, int(found[1])), 30) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            received = b"".join(iter(lambda: client.recv(65536), b""))
        self.assertTrue(received.endswith(b"\r\n\r\n"), received)
        process.terminate()
        output = process.stdout.read()
        self.check_lines(output)
        self.assertIn("child stdout\n", output)

    def test_observer_that_prints(self) -> None:
        """A log observer that prints does not log what it prints, and so on."""
        server = serve(self, "observing_app", f"--chdir={self.directory}")
        self.assertEqual(server.fetch("/").text, "x")
        server.wait_logged(r"(?m)^observed printed \(request ")
        self.assertNotIn("observed observed observed", server.log())


def kill_if_running(pid: int) -> None:
    """Kill a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
