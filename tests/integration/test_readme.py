"""The Python examples of the README, run unchanged except for addresses."""

from __future__ import annotations

import re
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import CHECKOUT, LOOPBACK, serve, start


def examples() -> list[str]:
    """Return the Python blocks of the README, in order."""
    text = (CHECKOUT / "README.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class ReadmeExampleTests(SynchronousTestCase):
    """Each example behaves as the README describes."""

    def setUp(self) -> None:
        """Read the three examples."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.flask, self.deferred, self.tac = examples()

    def test_flask(self) -> None:
        """Ten concurrent sleeping requests take less time than their sum."""
        (self.directory / "hello.py").write_text(self.flask)
        server = serve(self, "hello:app", f"--chdir={self.directory}")
        started = time.monotonic()
        clients = [server.connect() for _ in range(10)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for client in clients:
            with client:
                self.assertTrue(client.read_all().endswith(b"\r\n\r\nHello\n"))
        self.assertLess(time.monotonic() - started, 5)

    def test_deferred(self) -> None:
        """A view waits for a Deferred and responds with its result."""
        other = serve(self, "examples.hello:app")
        source = self.deferred.replace(
            "http://example.net/", f"http://{LOOPBACK}:{other.port}/"
        )
        self.assertNotEqual(source, self.deferred)
        (self.directory / "fetches.py").write_text(source)
        server = serve(self, "fetches:app", f"--chdir={self.directory}")
        self.assertEqual(server.fetch("/").body, other.fetch("/").body)

    def test_tac(self) -> None:
        """The server runs as a service of a Twisted application."""
        source = self.tac.replace("tcp:8080", f"tcp:0:interface={LOOPBACK}")
        self.assertNotEqual(source, self.tac)
        path = self.directory / "web.tac"
        path.write_text(source)
        server = start(self, "-y", str(path))
        self.assertEqual(server.fetch("/").text, "Hello\n")
