"""Limits on request bodies besides their size: time, trailers, chunk extensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .application import application
from .wire import WireTestCase, get, post

if TYPE_CHECKING:
    from txgreenwsgi.testing import MemoryClient, MemoryServer

CHUNKED = get("/echo", "Transfer-Encoding: chunked", method="POST")
TICK = 0.25


class RateTests(WireTestCase):
    """Clients that send slowly."""

    def send_slowly(
        self,
        server: MemoryServer,
        client: MemoryClient,
        piece: bytes,
        pause: float,
        most_seconds: float,
    ) -> float:
        """Send a piece after each pause; return the seconds until the response."""
        started = server.reactor.seconds()
        while not client.received:
            if server.reactor.seconds() - started > most_seconds:
                return float("inf")
            for _ in range(round(pause / TICK)):
                server.advance(TICK)
            client.send(piece)
        return float(server.reactor.seconds() - started)

    def test_trickle(self) -> None:
        """A client that sends single bytes gets 408 after the first minute."""
        server = self.recorded(application, body_timeout=30, min_body_rate=240)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 1000000", method="POST"))
        taken = self.send_slowly(server, client, b"x", 1, 100)
        self.assertEqual(taken, 61)
        [response] = client.responses()
        self.assertEqual(response.status, 408)
        self.assertIn(b"240 bytes a second", response.body)
        self.assertTrue(client.closed)
        self.assertEqual(server.tasks, [])
        self.assertEqual(self.outcomes(), [(408, "error")])

    def test_trickled_chunks(self) -> None:
        """A client that sends small chunks slowly gets 408 too."""
        server = self.serve(application, body_timeout=10, min_body_rate=100)
        client = server.connect()
        client.send(CHUNKED)
        taken = self.send_slowly(server, client, b"5\r\nabcde\r\n", 2, 100)
        self.assertEqual(taken, 62)
        self.assertEqual(client.responses()[0].status, 408)

    def test_just_fast_enough(self) -> None:
        """A client at the minimum rate is served."""
        server = self.serve(application, body_timeout=30, min_body_rate=240)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 240000", method="POST"))
        for _ in range(1000):
            client.send(b"x" * 240)
            server.advance(1)
        self.assertEqual(len(client.responses()[0].body), 240_000)

    def test_what_came_before_counts(self) -> None:
        """The rate is an average: fast bytes allow for a longer pause later."""
        server = self.serve(application, body_timeout=100, min_body_rate=100)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 1000000", method="POST"))
        client.send(bytes(20_000))
        taken = self.send_slowly(server, client, b"x", 1, 1000)
        self.assertEqual(round(taken, -1), 100 + 20_000 / 100)

    def test_application_that_takes_its_time(self) -> None:
        """Only the time in which a read is parked counts."""
        server = self.serve(application, body_timeout=5, min_body_rate=100)
        client = server.connect()
        client.send(
            get("/echo-slices?size=10&pause=20", "Content-Length: 100", method="POST")
        )
        for _ in range(10):
            client.send(b"0123456789")
            server.advance(20)
        server.advance(20)
        self.assertEqual(client.responses()[0].body, b"0123456789" * 10)

    def test_off(self) -> None:
        """Without a rate, one byte per --body-timeout is enough."""
        server = self.serve(application, body_timeout=30, min_body_rate=0)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 1000000", method="POST"))
        self.assertEqual(self.send_slowly(server, client, b"x", 29, 3600), float("inf"))
        server.close()

    def test_without_a_timeout(self) -> None:
        """Without --body-timeout, a body may take any time."""
        server = self.serve(application, body_timeout=0, min_body_rate=240)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 1000000", method="POST"))
        self.assertEqual(self.send_slowly(server, client, b"x", 60, 3600), float("inf"))
        server.close()

    def test_silence_comes_first(self) -> None:
        """A --body-timeout of more than a minute is honoured."""
        server = self.serve(application, body_timeout=90, min_body_rate=240)
        client = server.connect()
        client.send(get("/echo", "Content-Length: 2", method="POST"))
        self.assertEqual(self.send_slowly(server, client, b"x", 80, 75), float("inf"))
        client.send(b"x")
        self.assertEqual(client.responses()[0].status, 200)

    def test_body_that_has_come(self) -> None:
        """A complete body is never too slow."""
        server = self.serve(application, min_body_rate=10**6)
        client = server.connect()
        client.send(post("/sleep?seconds=300", b"abc"))
        for _ in range(301):
            server.advance(1)
        self.assertEqual(client.responses()[0].status, 200)


class ChunkTests(WireTestCase):
    """Trailers and chunk extensions."""

    def test_trailers(self) -> None:
        """Trailers longer than --max-trailer-size are refused, 431."""
        for size, status in ((100, 200), (99, 431)):
            server = self.serve(application, max_trailer_size=size)
            client = server.connect()
            client.send(CHUNKED + b"3\r\nabc\r\n0\r\nX-A: " + b"x" * 93 + b"\r\n\r\n")
            self.assertEqual(client.responses()[0].status, status)
            self.assertEqual(client.closed, status != 200)

    def test_extensions(self) -> None:
        """Chunk extensions longer than --max-chunk-extensions are refused, 400."""
        for size, status in ((19, 200), (18, 400)):
            server = self.serve(application, max_chunk_extensions=size)
            client = server.connect()
            client.send(CHUNKED + b"3;a=bcdefg\r\nabc\r\n0;z=yxwvuts\r\n\r\n")
            self.assertEqual(client.responses()[0].status, status)
            self.assertEqual(client.closed, status != 200)
