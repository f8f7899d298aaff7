"""Thousands of clients that disconnect at any moment leave nothing behind.

The moments come from a seeded generator, so that failures can be reproduced.
"""

from __future__ import annotations

import os
import random
import tempfile
from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel

from txgreenwsgi import ClientDisconnected

from .application import TEXT, application
from .wire import WireTestCase, chunked, get, post

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi.testing import MemoryServer

    from .application import Environ, Start

#: The number of aborted requests.
COUNT = int(os.environ.get("TXGREENWSGI_ABORTS", "10000"))

REQUESTS = [
    get("/"),
    get("/sleep"),
    get("/stream?count=3&size=3000&pause=0.5"),
    get("/stream?count=3&size=300", version="HTTP/1.0"),
    get("/written"),
    get("/late"),
    get("/environ", method="HEAD"),
    get("/memory-file"),
    get("/background"),
    post("/echo", b"x" * 3000),
    post("/echo-slices?size=100&pause=0.1", b"x" * 500),
    post("/lines", b"line\n" * 300),
    post("/unread", b"x" * 3000),
    post("/sleep", b"x" * 3000),
    get("/echo", "Content-Length: 3000", "Expect: 100-continue", method="POST"),
    chunked("/echo", *[b"xyz" * 30] * 9, trailers=b"A: b\r\n"),
    chunked("/echo-slices?size=7&pause=0.1", *[b"xyz"] * 9),
    chunked("/unread", *[b"xyz"] * 9),
    get("/", "Bad : field"),
    get("/") * 3 + get("/sleep") + post("/echo", b"x" * 10) * 2,
]


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    """Call the test application; /background also has a task that reads and writes."""
    if environ["PATH_INFO"] != "/background":
        return application(environ, start)
    write = start("200 OK", TEXT)

    def work() -> None:
        try:
            write(b"x" * 3000)
        except (ClientDisconnected, RuntimeError):
            return

    environ["txgreenwsgi.spawn"](work).wait()
    return []


class AbortTests(WireTestCase):
    """Clients in memory."""

    def abort(self, server: MemoryServer, chance: random.Random) -> None:
        """Let a client send a request in a random way, and leave at a random moment."""
        request = chance.choice(REQUESTS)
        room = chance.choice([float("inf"), 10, 100, 1000])
        client = server.connect(room)
        if chance.random() < 0.5:
            client.disconnect_after(chance.randrange(1, 4000))
        sent = request[: chance.randrange(len(request) + 1)]
        client.send(sent, chance.choice([0, 0, 100, 1000]))
        for _ in range(chance.randrange(3)):
            if chance.random() < 0.5:
                server.reactor.advance(chance.choice([0, 0.1, 0.5, 1]))
            client.read(chance.randrange(1, 500))
        if chance.random() < 0.1:
            client.socket.client_closed = True
            client.settle()
        client.disconnect()

    def run_all(self, count: int, seed: int, **settings: Any) -> None:
        """Fail if `count` clients leave anything behind, or cause a logged error."""
        chance = random.Random(seed)
        server = self.recorded(app, **settings)
        for number in range(count):
            self.abort(server, chance)
            server.clients.clear()
            if number % 1000 == 999:
                server.reactor.advance(0.5)
        for _ in range(12):
            server.advance(0.5)
        self.assertEqual(self.logged(LogLevel.error), [])
        self.assert_nothing_left(server)
        self.assertEqual(server.site.server.admission.running, 0)
        self.assertEqual(server.site.server.admission.queued, 0)
        self.assertEqual(server.site.server.detached, set())
        self.assertGreater(len(self.records), count / 4)
        self.assertIn("disconnected", {record.outcome for record in self.records})

    def test_many(self) -> None:
        """10,000 aborted requests leave no task, connection, call or error behind."""
        self.run_all(COUNT * 7 // 10, 1)

    def test_many_that_are_cancelled(self) -> None:
        """The same holds with --on-disconnect cancel."""
        self.run_all(COUNT // 10, 2, on_disconnect="cancel", request_timeout=2)

    def test_many_that_queue(self) -> None:
        """The same holds for requests in the admission queue."""
        self.run_all(COUNT // 10, 3, max_in_flight=2, max_queued=3, queue_timeout=1)

    def test_many_with_narrow_limits(self) -> None:
        """The same holds with small limits and without keep-alive."""
        self.run_all(COUNT // 10, 4, input_window=10, max_body=2000, keep_alive=0)

    def test_file_is_closed(self) -> None:
        """The file of an aborted file response is closed."""
        chance = random.Random(5)
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(5000))
            file.flush()
            server = self.serve(app)
            for _ in range(100):
                client = server.connect(room=chance.randrange(1, 6000))
                client.disconnect_after(chance.randrange(1, 6000))
                client.send(get(f"/file?path={file.name}"))
                client.read(chance.randrange(6000))
                client.disconnect()
            self.assert_nothing_left(server)
