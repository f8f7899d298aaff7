"""The programs from which this server originated, over real connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .processes import serve, shared

if TYPE_CHECKING:
    from .processes import RawClient

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def say(client: RawClient, text: bytes) -> None:
    """Send a text as a terminal would: each byte in its own chunk."""
    for byte in text:
        client.send(b"1\r\n%c\r\n" % byte)


class CommandLoopTests(SynchronousTestCase):
    """A loop that reads single characters, two calls deep."""

    APP = "examples.origins.a01_command_loop:app"

    def test_conversation(self) -> None:
        """Each command is answered at once; other requests are served meanwhile."""
        server = shared(self.APP)
        with server.connect() as client:
            client.send(CHUNKED)
            client.read_until(b"ready\n")
            say(client, b"hel")
            # In the middle of a command, another client is served.
            self.assertEqual(server.fetch("/").text, "ready\nend of input\n")
            say(client, b"p\n")
            client.read_until(b"you said: help\n")
            say(client, b"quit\n")
            client.read_until(b"are you sure? ")
            say(client, b"no\n")
            client.read_until(b"carrying on\n")
            say(client, b"quit\n")
            client.read_until(b"are you sure? ")
            say(client, b"y")
            client.read_until(b"bye\n")
            # The end of the response, though the request body has not ended.
            client.read_until(b"0\r\n\r\n")

    def test_end_of_input(self) -> None:
        """The loop ends with its input."""
        answer = shared(self.APP).fetch("/", "POST", b"one\ntwo\nquit\n")
        self.assertEqual(
            answer.text,
            "ready\nyou said: one\nyou said: two\nare you sure? end of input\n",
        )


class FaithfulCopyTests(SynchronousTestCase):
    """The original loop, which reads past the end of its input forever."""

    APP = "examples.origins.a01_faithful:app"

    def test_quit(self) -> None:
        """It behaves as on the original server."""
        server = serve(self, self.APP)
        answer = server.fetch("/", "POST", b"help\nquit\nno\nquit\ny")
        self.assertEqual(
            answer.text,
            "you said: help\nare you sure? you said: o\nare you sure? ",
        )

    def test_others_are_served(self) -> None:
        """While it spins, other requests are served; a request timeout ends it."""
        server = serve(self, self.APP, "--request-timeout=6")
        with server.connect() as spinning:
            spinning.send(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelp\n"
            )
            started = time.monotonic()
            spinning.read_until(b"you said: help\n")
            for _ in range(20):
                self.assertEqual(server.fetch("/").text, "still here\n")
            self.assertLess(time.monotonic() - started, 5.9)
            rest = spinning.read_all()
            elapsed = time.monotonic() - started
        # No last chunk: the response is recognisably incomplete.
        self.assertNotIn(b"0\r\n\r\n", rest)
        self.assertGreater(elapsed, 5.5)
        self.assertLess(elapsed, 15.0)
        server.wait_logged("(?i)timeout|timed out")
        server.ask_to_stop()
        server.wait_ended()
