"""Priorities of responses (RFC 9218)."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http2.budgets import Budget
from txgreenwsgi._http2.priority import DEFAULT_URGENCY, Turns, urgency_of
from txgreenwsgi.testing import LeakCheckMixin

from .frames import (
    DATA,
    GREATEST_WINDOW,
    PRIORITY_UPDATE,
    RST_STREAM,
    WINDOW_UPDATE,
    RawClient,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi.testing import MemoryServer

    Environ = dict[str, Any]
    Start = Callable[..., Any]


class UrgencyTests(SynchronousTestCase):
    """The urgency in a Priority field."""

    def test_values(self) -> None:
        """The last valid member counts; invalid values count as absent."""
        for value, urgency in (
            ("u=0", 0),
            ("u=7, i", 7),
            ("i, u=2", 2),
            ("i,\tu=2;x=1", 2),
            ("u=1, u=5", 5),
            ("", DEFAULT_URGENCY),
            ("i", DEFAULT_URGENCY),
            ("u=8", DEFAULT_URGENCY),
            ("u=-1", DEFAULT_URGENCY),
            ("u=1.5", DEFAULT_URGENCY),
            ("xu=1", DEFAULT_URGENCY),
            ("u", DEFAULT_URGENCY),
        ):
            self.assertEqual(urgency_of(value), urgency, value)


class TurnsTests(SynchronousTestCase):
    """The order of streams."""

    def test_order(self) -> None:
        """Streams of one urgency take turns; more urgent ones come first."""
        turns: Turns[str] = Turns()
        for name, urgency in (("a", 3), ("b", 3), ("c", 5), ("a", 3)):
            turns.add(name, urgency)
        self.assertEqual("".join(turns.next() for _ in range(4)), "abab")
        turns.add("d", 0)
        self.assertEqual("".join(turns.next() for _ in range(2)), "dd")
        turns.remove("d")
        turns.move("c", 3)
        self.assertEqual("".join(turns.next() for _ in range(4)), "abca")
        for name in "abcabc":
            self.assertEqual(bool(turns), name in turns or bool(turns))
            turns.remove(name)
        self.assertFalse(turns)
        turns.move("a", 1)
        self.assertRaises(ValueError, turns.next)


class BudgetTests(SynchronousTestCase):
    """Token buckets."""

    def test_burst_and_rate(self) -> None:
        """A burst is followed by a rate; the bucket fills up to its size."""
        budget = Budget(3, 2)
        self.assertEqual([budget.take(10) for _ in range(4)], [True] * 3 + [False])
        self.assertEqual([budget.take(10.5) for _ in range(2)], [True, False])
        self.assertEqual([budget.take(99) for _ in range(4)], [True] * 3 + [False])

    def test_give(self) -> None:
        """Useful work adds tokens, above the size too, and they stay."""
        budget = Budget(1, 1)
        budget.give(5, 4)
        self.assertEqual(budget.tokens, 4)
        self.assertEqual([budget.take(100) for _ in range(5)], [True] * 4 + [False])


def pass_time(server: MemoryServer, seconds: float) -> None:
    """Let time pass in small steps, as in production."""
    for _ in range(round(seconds * 4)):
        server.advance(0.25)


class ResponseOrderTests(LeakCheckMixin, SynchronousTestCase):
    """The order of DATA frames."""

    def streams_of(
        self, requests: list[tuple[int, str]], between: bytes = b""
    ) -> list[int]:
        """Return the streams of the DATA frames of large responses.

        Args:
            requests: stream and Priority field of each.
            between: frames that follow the requests.
        """

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"x" * 50_000]

        client = RawClient(self.serve(app, http2="h2c"))
        blocker = client.request(1)  # takes most of the window of the connection
        client.send(blocker)
        for stream, value in requests:
            client.send(client.request(stream, more=[("priority", value)]))
        client.send(between)
        client.received()
        client.frames.clear()
        client.send(frame(WINDOW_UPDATE, 0, 0, pack(">L", 1_000_000)))
        return [each.stream for each in client.of_kind(DATA) if each.payload]

    def test_same_urgency(self) -> None:
        """Responses of one urgency take turns."""
        found = self.streams_of([(3, "u=3"), (5, "u=3, i"), (7, "")])
        self.assertEqual(sorted(found[:3]), [3, 5, 7])
        self.assertEqual(found[3:6], found[:3])

    def test_urgencies(self) -> None:
        """More urgent responses come first."""
        found = self.streams_of([(3, "u=5"), (5, "u=1"), (7, "u=3")])
        self.assertEqual(list(dict.fromkeys(found)), [5, 7, 3])

    def test_update(self) -> None:
        """PRIORITY_UPDATE changes the urgency of a response in progress."""
        update = frame(PRIORITY_UPDATE, 0, 0, pack(">L", 7) + b"u=0")
        found = self.streams_of([(3, "u=5"), (5, "u=1"), (7, "u=6")], update)
        self.assertEqual(list(dict.fromkeys(found)), [7, 5, 3])

    def test_update_before_the_request(self) -> None:
        """PRIORITY_UPDATE before the request overrides its field."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"x" * 70_000]

        client = RawClient(self.serve(app, http2="h2c"))
        client.send(frame(PRIORITY_UPDATE, 0, 0, pack(">L", 3) + b"u=0"))
        client.send(client.request(1))
        client.send(client.request(3, more=[("priority", "u=7")]))
        for stream in (1, 3):
            client.send(frame(WINDOW_UPDATE, 0, stream, pack(">L", 100_000)))
        client.received()
        client.frames.clear()
        client.send(frame(WINDOW_UPDATE, 0, 0, pack(">L", 1_000_000)))
        self.assertEqual(client.of_kind(DATA)[0].stream, 3)

    def test_slow_stream(self) -> None:
        """A stream whose window is used up does not stall the others."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            size = 100_000 if environ["PATH_INFO"] == "/large" else 20_000
            return [b"x" * size]

        client = RawClient(self.serve(app, http2="h2c"))
        client.send(frame(WINDOW_UPDATE, 0, 0, pack(">L", 1_000_000)))
        client.send(client.request(1, "/large", [("priority", "u=0")]))
        client.send(client.request(3))
        self.assertEqual(len(client.body(1)), 65535)
        self.assertEqual(len(client.body(3)), 20_000)

    def server_of_long_responses(self) -> MemoryServer:
        """Return a server whose response at /urgent is long."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            return [b"x" * (1_000_000 if environ["PATH_INFO"] == "/urgent" else 1000)]

        return self.serve(app, http2="h2c", write_timeout=4)

    def test_closed_window_behind_urgent_streams(self) -> None:
        """A stream whose own window is closed does not wait for more urgent ones."""
        server = self.server_of_long_responses()
        client = RawClient(server, settings=pack(">HL", 4, 0))
        client.send(client.request(1, "/urgent", [("priority", "u=0")]))
        client.send(frame(WINDOW_UPDATE, 0, 1, pack(">L", GREATEST_WINDOW)))
        client.send(client.request(3, more=[("priority", "u=7")]))
        for _ in range(5):
            pass_time(server, 3)
            client.send(frame(WINDOW_UPDATE, 0, 0, pack(">L", 20_000)))
        resets = [each.stream for each in client.of_kind(RST_STREAM)]
        self.assertEqual(resets, [3])

    def test_wait_for_urgent_streams(self) -> None:
        """write_timeout counts from the progress of the connection.

        A stream waits for more urgent ones as long as these make progress.
        """
        server = self.server_of_long_responses()
        client = RawClient(server, settings=pack(">HL", 4, GREATEST_WINDOW))
        client.send(client.request(1, "/urgent", [("priority", "u=0")]))
        client.send(client.request(3, more=[("priority", "u=7")]))
        for _ in range(5):
            pass_time(server, 3)
            client.send(frame(WINDOW_UPDATE, 0, 0, pack(">L", 20_000)))
        pass_time(server, 3.5)
        self.assertEqual(client.of_kind(RST_STREAM), [])
        self.assertEqual(len(client.body(1)), 65535 + 5 * 20_000)
        self.assertEqual(len(client.body(3)), 0)
        pass_time(server, 1)
        resets = [each.stream for each in client.of_kind(RST_STREAM)]
        self.assertEqual(sorted(resets), [1, 3])
