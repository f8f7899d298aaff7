"""Thousands of real clients that disconnect at random moments.

TXGREENWSGI_ABORTS sets their number; a seeded generator chooses the moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import time

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.server.test_aborts import REQUESTS
from tests.server.wire import get

from .processes import LOOPBACK, ServerProcess, serve

APP = "tests.server.test_aborts:app"
COUNT = int(os.environ.get("TXGREENWSGI_ABORTS", "10000"))

MORE = [
    get("/stream?count=10&size=300000"),
    get("/stream?count=10&size=300000", version="HTTP/1.0"),
    get("/sleep?seconds=0.3"),
]
CHOICES = [request.replace(b"/sleep", b"/sleep?seconds=0.2") for request in REQUESTS]

#: With this option, close() makes the kernel send a reset.
RESET = struct.pack("ii", 1, 0)


class AbortTests(SynchronousTestCase):
    """Clients on TCP."""

    def abort(self, server: ServerProcess, chance: random.Random) -> None:
        """Send a part of a request, read a part of the response, and disconnect."""
        request = chance.choice(CHOICES + MORE)
        with socket.create_connection((LOOPBACK, server.port), timeout=15) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(request[: chance.randrange(len(request) + 1)])
                if chance.random() < 0.3:
                    client.settimeout(chance.choice([0.0001, 0.0003, 0.002]))
                    with contextlib.suppress(TimeoutError):
                        client.recv(chance.randrange(1, 100_000))
            how = chance.random()
            if how < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif how < 0.6:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)

    def census(self, server: ServerProcess) -> dict[str, int]:
        """Return the server's counters."""
        counted: dict[str, int] = json.loads(server.fetch("/census").body)
        return counted

    def run_all(self, count: int, seed: int, *options: str) -> None:
        """Fail if the clients leave anything behind, or the log has an error."""
        if not os.path.isdir("/proc/self/fd"):
            raise SkipTest("this system does not list a process's descriptors")
        server = serve(self, APP, *options)
        before = self.census(server)
        chance = random.Random(seed)
        for _ in range(count):
            self.abort(server, chance)
        until = time.monotonic() + 60  # threads stay for 10 s
        after = self.census(server)
        while time.monotonic() < until and (
            after["requests"] or after["files"] > before["files"]
        ):
            time.sleep(0.1)
            after = self.census(server)
        self.assertEqual(after["requests"], 0, after)
        self.assertLessEqual(after["files"], before["files"])
        self.assertNotIn("Traceback", server.log())
        self.assertNotIn("Unhandled", server.log())
        server.ask_to_stop()
        server.wait_ended()

    def test_many(self) -> None:
        """10,000 of them leave no request, no descriptor and no error in the log."""
        self.run_all(COUNT * 8 // 10, 1)

    def test_many_that_are_cancelled(self) -> None:
        """The same if a disconnect cancels the request, and the buffers are small."""
        self.run_all(COUNT // 10, 2, "--on-disconnect=cancel", "--input-window=100")

    def test_many_that_queue(self) -> None:
        """The same if requests wait in the queue."""
        self.run_all(COUNT // 10, 3, "--max-in-flight=3", "--max-queued=5")
