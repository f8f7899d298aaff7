"""The examples of docs/embedding.md, run as programs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, LOOPBACK, RawClient, ServerProcess, start

PAGE = CHECKOUT / "docs" / "embedding.md"
SECONDS = 20.0
SLEEPERS = 200
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def examples() -> dict[str, str]:
    """Return the block of Python below each heading; the first is `hello.py`."""
    found: dict[str, str] = {}
    for section in PAGE.read_text("utf-8").split("\n## "):
        heading = section.partition("\n")[0].lstrip("# ")
        block = re.search(r"^```python\n(.*?)^```$", section, re.M | re.S)
        if block:
            found[heading] = block[1]
    return found


class ProgramTestCase(SynchronousTestCase):
    """A folder with the application of the page."""

    def setUp(self) -> None:
        """Write the application."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.examples = examples()
        hello = self.examples["Embedding in a Twisted service"]
        (self.folder / "hello.py").write_text(hello)

    def write(self, heading: str, name: str) -> Path:
        """Write an example, on free ports of the loopback interface."""
        source, count = re.subn(
            r"tcp:80\d\d", f"tcp:0:interface={LOOPBACK}", self.examples[heading]
        )
        path = self.folder / name
        path.write_text(source)
        self.endpoints = count
        return path

    def assert_waits_overlap(self, server: ServerProcess) -> None:
        """Requests that sleep for 0.1 seconds each take less than their sum."""
        started = time.monotonic()
        clients = [server.connect() for _ in range(SLEEPERS)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for client in clients:
            with client:
                self.assertIn(b"Hello\n", client.read_all())
        self.assertLess(time.monotonic() - started, SLEEPERS * 0.1)


class TacTests(ProgramTestCase):
    """The .tac files."""

    def start(self, heading: str) -> ServerProcess:
        """Start an example with `twistd -y`, in the folder's import path."""
        path = self.write(heading, "web.tac")
        paths = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        environ = {"PYTHONPATH": os.pathsep.join(paths)}
        server = start(self, "-y", str(path), endpoints=self.endpoints, environ=environ)
        self.assertNotIn("is not patched", server.log())
        return server

    def test_application_by_name(self) -> None:
        """A named application is patched, served and logged."""
        server = self.start("A .tac file")
        self.assert_waits_overlap(server)
        server.wait_logged(r'"GET / HTTP/1.1" 200 6')

    def test_application_object(self) -> None:
        """An application imported after patch_all() waits without blocking."""
        self.assert_waits_overlap(self.start("A .tac file with an application object"))

    def test_other_services(self) -> None:
        """A protocol on another port sees what the view has counted."""
        server = self.start("Beside other services")
        for _ in range(3):
            self.assertEqual(server.fetch("/").text, "Hello\n")
        with server.connect(server.ports[1]) as client:
            self.assertEqual(client.read_all(), b"3 visits\n")

    def test_twisted_web(self) -> None:
        """A resource serves the application, and its children beside it."""
        server = self.start("twisted.web")
        self.assert_waits_overlap(server)
        self.assertEqual(server.fetch("/robots.txt").text, "User-agent: *\n")
        server.wait_logged(r'"GET / HTTP/1.1" 200 6')


class ProgramTests(ProgramTestCase):
    """The programs that run the reactor themselves."""

    def run_program(self, heading: str) -> subprocess.Popen[str]:
        """Start an example with Python; its output goes to `output`."""
        path = self.write(heading, "program.py")
        self.output = self.folder / "output"
        with self.output.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-u", str(path)],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def port(self) -> int:
        """Wait until the program listens; return its port."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = re.search(r" starting on (\d+)", self.output.read_text())
            if found:
                return int(found[1])
            time.sleep(0.02)
        raise AssertionError(self.output.read_text())

    def assert_serves_and_stops(self, heading: str) -> None:
        """The program answers a request that is in flight when it is stopped."""
        process = self.run_program(heading)
        address = (LOOPBACK, self.port())
        with RawClient(socket.create_connection(address, SECONDS)) as client:
            # The first answer shows that the second request has been read.
            client.send(GET + GET)
            client.read_until(b"Hello\n")
            process.send_signal(signal.SIGTERM)
            self.assertIn(b"Hello\n", client.read_all())
        process.wait(SECONDS)
        self.assertNotIn("Traceback", self.output.read_text())

    def test_service(self) -> None:
        """A program itself starts and stops the service."""
        self.assert_serves_and_stops("A program without twistd")

    def test_site(self) -> None:
        """A site on an endpoint of the program answers, and logs its requests."""
        self.assert_serves_and_stops("GreenSite with your own endpoint")
        self.assertIn(
            '"GET / HTTP/1.1" 200 6', (self.folder / "access.log").read_text()
        )

    def test_in_greenlet(self) -> None:
        """A function that waits runs in its own task."""
        process = self.run_program("Waiting in your own Twisted code")
        process.wait(SECONDS)
        self.assertEqual(self.output.read_text(), "42\n")
