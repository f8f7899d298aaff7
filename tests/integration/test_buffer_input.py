"""`--buffer-input` over real connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .processes import ANSWER_SECONDS, serve

if TYPE_CHECKING:
    from .processes import ServerProcess

COMMANDS = "examples.origins.a01_command_loop:app"
FLASK = "examples.flask_app:app"


class BufferInputTests(SynchronousTestCase):
    """The application is called after the whole request body has arrived."""

    def both(self, app: str) -> tuple[ServerProcess, ServerProcess]:
        """Start a server without the option, and one with it and 100 kB of memory."""
        return serve(self, app), serve(
            self, app, "--buffer-input", "--buffer-memory=100K"
        )

    def test_equal_results(self) -> None:
        """An application answers the same, with the body in memory or on the disk."""
        plain, buffered = self.both(COMMANDS)
        for body in (b"", b"help\nquit\nno\nquit\ny", b"again\n" * 50_000):
            answers = {
                server.fetch("/", "POST", body).body for server in (plain, buffered)
            }
            self.assertEqual(len(answers), 1)

    def test_called_after_the_body(self) -> None:
        """The application sends nothing before the whole body has arrived."""
        _plain, server = self.both(COMMANDS)
        with server.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelp")
            client.socket.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                client.socket.recv(1)
            client.socket.settimeout(ANSWER_SECONDS)
            client.send(b"\n")
            client.read_until(b"you said: help\n")

    def test_other_requests(self) -> None:
        """While large bodies are written to the disk, other requests are served."""
        _plain, server = self.both(COMMANDS)
        body = b"line\n" * 2_000_000
        with server.connect() as client:
            client.send(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            slowest = 0.0
            for start in range(0, len(body), 1_000_000):
                client.send(body[start : start + 1_000_000])
                started = time.monotonic()
                server.fetch("/")
                slowest = max(slowest, time.monotonic() - started)
            self.assertLess(slowest, 5.0)
        self.assertNotIn("Traceback", server.log())

    def test_form_with_file(self) -> None:
        """A framework parses an upload as it does without the option."""
        plain, buffered = self.both(FLASK)
        body = (
            b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\nHoliday\r\n'
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
            b"\r\n" + bytes(range(256)) * 1000 + b"\r\n--x--\r\n"
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answers = {
            server.fetch("/form", "POST", body, headers).body
            for server in (plain, buffered)
        }
        self.assertEqual(len(answers), 1)
        self.assertIn(b"Holiday", answers.pop())
