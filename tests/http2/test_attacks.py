"""Attacks on HTTP/2: bounds on delivered requests, on work and on memory.

Each attack sends far more than the limits allow. The work is bounded by the frames that
the server interprets before it gives up, and compared with the work of as many ordinary
requests; memory by what stays allocated.
"""

from __future__ import annotations

import tracemalloc
from struct import pack
from time import process_time
from typing import TYPE_CHECKING, Any

from hpack.hpack import encode_integer
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

from .frames import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GREATEST_WINDOW,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi.testing import MemoryServer

    Environ = dict[str, Any]
    Start = Callable[..., Any]

#: Maximum number of requests that a client may abort before the connection ends, and of
#: other useless frames. gunicorn 27 allows 200 and 1,000 in ten seconds.
ABORTED = 110
USELESS = 510

#: Maximum memory that an attack may leave allocated, in bytes.
MEMORY = 2_000_000

#: The header block of a request that uses no dynamic table.
HEAD = b"\x82\x86\x84\x01\x04test"

#: A field of 4,000 bytes that enters the dynamic table.
LARGE = b"\x40\x01a" + bytes(encode_integer(4000, 7)) + b"x" * 4000


class AttackTestCase(LeakCheckMixin, SynchronousTestCase):
    """A server in memory and its attacker.

    Attributes:
        called: the paths of the requests that reached the application.
    """

    def setUp(self) -> None:
        """Start without requests."""
        self.called: list[str] = []

    def app(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer; /sleep takes an hour, /large is larger than the windows."""
        path = environ["PATH_INFO"]
        self.called.append(path)
        if path == "/sleep":
            environ["txgreenwsgi.sleep"](3600)
        if path == "/read":
            environ["wsgi.input"].read()
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"x" * (1_000_000 if path == "/large" else 5)]

    def server_of(self, **settings: Any) -> MemoryServer:
        """Return a server, whose tasks end before it is checked for leaks."""
        server = self.serve(self.app, http2="h2c", **settings)
        self.addCleanup(server.advance, 4000)
        return server

    def attacked(
        self,
        frames: Callable[[RawClient], Iterable[bytes]],
        error: int = ENHANCE_YOUR_CALM,
        **settings: Any,
    ) -> RawClient:
        """Run an attack; fail if the connection survives, or costs too much.

        Args:
            frames: returns the pieces to send.
            error: the expected error of the connection.
            settings: of the server.
        """
        server = self.server_of(**settings)
        ordinary = RawClient(server)
        requests = b"".join(ordinary.request(2 * n + 1) for n in range(300))
        began = process_time()
        for start in range(0, len(requests), 300):
            ordinary.send(requests[start : start + 300])
        usual = process_time() - began
        self.called.clear()
        client = RawClient(server)
        pieces = list(frames(client))
        tracemalloc.start()
        began = process_time()
        for piece in pieces:
            client.send(piece)
        cost = process_time() - began
        left = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self.assertEqual(client.error(), error)
        # tracemalloc makes it several times slower.
        self.assertLess(cost, 60 * usual + 1)
        unread = len(client.memory.received) + len(client.memory.socket.to_server)
        self.assertLess(left - unread, MEMORY)
        return client


def streams(first: int = 1) -> Iterable[int]:
    """Return the numbers of 1,500 streams."""
    return range(first, first + 3000, 2)


class ResetTests(AttackTestCase):
    """Streams that end before their responses."""

    def test_rapid_reset(self) -> None:
        """Requests that are reset at once (CVE-2023-44487)."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, "/sleep") + frame(
                    RST_STREAM, 0, stream, pack(">L", CANCEL)
                )

        self.attacked(frames)
        self.assertLess(len(self.called), ABORTED)

    def test_rapid_reset_in_one_piece(self) -> None:
        """All frames in one piece."""

        def frames(client: RawClient) -> Iterable[bytes]:
            return [
                b"".join(
                    client.request(stream, "/sleep")
                    + frame(RST_STREAM, 0, stream, pack(">L", CANCEL))
                    for stream in streams()
                )
            ]

        self.attacked(frames)
        self.assertLess(len(self.called), ABORTED)

    def test_slots(self) -> None:
        """A slot is free when the task has ended, not when its stream has."""
        server = self.server_of(max_in_flight=10, max_queued=0)
        client = RawClient(server)
        for stream in range(1, 41, 2):
            client.send(
                client.request(stream, "/sleep")
                + frame(RST_STREAM, 0, stream, pack(">L", CANCEL))
            )
        self.assertEqual(self.called, ["/sleep"] * 10)
        self.assertEqual(len(server.tasks), 10)
        client.send(client.request(101))
        self.assertEqual(client.responses()[101], 503)

    def test_tasks_of_reset_streams(self) -> None:
        """The tasks of a connection are limited, however slowly it resets streams."""
        server = self.server_of(http2_max_streams=10)
        client = RawClient(server)
        for stream in range(1, 121, 2):
            client.send(
                client.request(stream, "/sleep")
                + frame(RST_STREAM, 0, stream, pack(">L", CANCEL))
            )
        self.assertIsNone(client.error())
        self.assertEqual(len(server.tasks), 20)

    def test_window_overflow(self) -> None:
        """MadeYouReset by a window that overflows (CVE-2025-8671)."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, "/sleep") + frame(
                    WINDOW_UPDATE, 0, stream, pack(">L", GREATEST_WINDOW)
                )

        self.attacked(frames)
        self.assertLess(len(self.called), ABORTED)

    def test_data_after_the_end(self) -> None:
        """MadeYouReset by DATA after END_STREAM."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, "/sleep") + frame(DATA, 0, stream, b"x")

        self.attacked(frames)
        self.assertLess(len(self.called), ABORTED)

    def test_head_after_the_end(self) -> None:
        """MadeYouReset by HEADERS after END_STREAM."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, "/sleep") + client.request(stream)

        self.attacked(frames)
        self.assertLess(len(self.called), ABORTED)

    def test_wrong_length(self) -> None:
        """MadeYouReset by a body that contradicts its Content-Length."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.upload(stream, [("content-length", "3")]) + frame(
                    DATA, 0, stream, b"four"
                )

        self.attacked(frames)
        self.assertLess(len(self.called), ABORTED)

    def test_invalid_trailers(self) -> None:
        """MadeYouReset by trailers with an invalid name."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.upload(stream) + frame(
                    HEADERS,
                    END_STREAM | END_HEADERS,
                    stream,
                    client.block([(":path", "/")]),
                )

        self.attacked(frames)
        self.assertLess(len(self.called), ABORTED)

    def test_invalid_requests(self) -> None:
        """Requests that violate HTTP/2 do not reach the application."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, more=[("UPPER", "case")])

        self.attacked(frames)
        self.assertEqual(self.called, [])

    def test_zero_increment(self) -> None:
        """MadeYouReset by an increment of zero: a connection error at once."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, "/sleep") + frame(
                    WINDOW_UPDATE, 0, stream, bytes(4)
                )

        self.attacked(frames, error=1)
        self.assertEqual(len(self.called), 1)

    def test_self_dependency(self) -> None:
        """MadeYouReset by a stream that depends on itself: a connection error."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, "/sleep") + frame(
                    PRIORITY, 0, stream, pack(">LB", stream, 1)
                )

        self.attacked(frames, error=1)
        self.assertEqual(len(self.called), 1)

    def test_short_priority(self) -> None:
        """MadeYouReset by a PRIORITY frame of a wrong size: a connection error."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield client.request(stream, "/sleep") + frame(
                    PRIORITY, 0, stream, b"1234"
                )

        self.attacked(frames, error=6)
        self.assertEqual(len(self.called), 1)

    def test_too_many_streams(self) -> None:
        """Streams above the limit are refused, and do not reach the application."""

        def frames(client: RawClient) -> Iterable[bytes]:
            return [client.request(stream, "/sleep") for stream in streams()]

        client = self.attacked(frames)
        self.assertEqual(len(self.called), 100)
        self.assertEqual({code for _, code in client.resets()}, {7})

    def test_ordinary_aborts(self) -> None:
        """A client that leaves a page aborts all its requests, and goes on."""
        server = self.server_of()
        client = RawClient(server)
        for page in range(5):
            first = 1 + 200 * page
            page_streams = range(first, first + 40, 2)
            for stream in page_streams:
                client.send(client.request(stream, "/sleep"))
            for stream in page_streams:
                client.send(frame(RST_STREAM, 0, stream, pack(">L", CANCEL)))
            server.advance(2)
        client.send(client.request(2001))
        self.assertEqual(client.responses()[2001], 200)


class FloodTests(AttackTestCase):
    """Frames that cost work and bring nothing."""

    def flood(self, data: bytes, **settings: Any) -> RawClient:
        """Send the same bytes 5,000 times, a hundred at a time."""
        return self.attacked(lambda _: [data * 100] * 50, **settings)

    def test_ping(self) -> None:
        """PING, which must be answered."""
        client = self.flood(frame(PING, 0, 0, bytes(8)))
        self.assertLess(len(client.of_kind(PING)), USELESS)

    def test_settings(self) -> None:
        """SETTINGS, which must be answered."""
        client = self.flood(frame(SETTINGS, 0, 0, pack(">HL", 4, 70_000)))
        self.assertLess(len(client.of_kind(SETTINGS)), USELESS)

    def test_priority(self) -> None:
        """PRIORITY, which is ignored."""
        self.flood(frame(PRIORITY, 0, 1, pack(">LB", 0, 1)))

    def test_priority_update(self) -> None:
        """PRIORITY_UPDATE of streams that are never opened."""

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield frame(PRIORITY_UPDATE, 0, 0, pack(">L", stream) + b"u=1")

        self.attacked(frames)

    def test_window_update(self) -> None:
        """WINDOW_UPDATE without data to send."""
        self.flood(frame(WINDOW_UPDATE, 0, 0, pack(">L", 1)))

    def test_unknown(self) -> None:
        """Frames of unknown types, which are ignored."""
        self.flood(frame(0x42, 0, 0, b"x"))

    def test_reset_of_closed_streams(self) -> None:
        """RST_STREAM of a stream that has ended."""

        def frames(client: RawClient) -> Iterable[bytes]:
            yield client.request(1)
            for _ in range(50):
                yield frame(RST_STREAM, 0, 1, pack(">L", CANCEL)) * 100

        self.attacked(frames)

    def test_empty_data(self) -> None:
        """DATA without data (CVE-2019-9518), also padded."""
        for payload, flags in ((b"", 0), (b"\3\0\0\0", PADDED)):

            def frames(
                client: RawClient, payload: bytes = payload, flags: int = flags
            ) -> Iterable[bytes]:
                yield client.upload(1)
                for _ in range(50):
                    yield frame(DATA, flags, 1, payload) * 100

            self.attacked(frames)

    def test_data_of_closed_streams(self) -> None:
        """DATA of a stream that was reset."""

        def frames(client: RawClient) -> Iterable[bytes]:
            yield client.upload(1) + frame(RST_STREAM, 0, 1, pack(">L", CANCEL))
            for _ in range(50):
                yield frame(DATA, 0, 1, b"x") * 100

        client = self.attacked(frames)
        self.assertEqual(client.resets(), [])

    def test_small_data(self) -> None:
        """A body of many small pieces takes no more memory than its window."""
        server = self.server_of()
        client = RawClient(server)
        client.send(client.upload(1))
        client.send(frame(DATA, 0, 1, b"x"))
        tracemalloc.start()
        for _ in range(600):
            client.send(frame(DATA, 0, 1, b"x") * 100)
        left = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self.assertLess(left, 500_000)
        self.assertIsNone(client.error())


class HeadTests(AttackTestCase):
    """Heads that cost more than they look."""

    def test_continuation(self) -> None:
        """A head that does not end (CVE-2024-27316): empty, small and large frames."""
        for size in (0, 1, 16384):

            def frames(client: RawClient, size: int = size) -> Iterable[bytes]:
                yield frame(HEADERS, 0, 1, client.head())
                for _ in range(50):
                    yield frame(CONTINUATION, 0, 1, bytes(size)) * 10

            self.attacked(frames)
            self.assertEqual(self.called, [])

    def test_bomb(self) -> None:
        """References to one large field (CVE-2016-6581)."""

        def frames(client: RawClient) -> Iterable[bytes]:
            yield frame(
                HEADERS, END_STREAM | END_HEADERS, 1, HEAD + LARGE + b"\xbe" * 12_000
            )

        self.attacked(frames)
        self.assertEqual(self.called, [])

    def test_bombs_below_the_limit(self) -> None:
        """Heads that expand to little more than the limit get 431."""
        server = self.server_of()
        client = RawClient(server)
        client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, HEAD + LARGE))
        for stream, times in ((3, 8), (5, 9), (7, 16)):
            block = HEAD + b"\xbe" * times
            client.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, block))
        self.assertEqual(client.responses(), {1: 200, 3: 200, 5: 431, 7: 431})
        self.assertEqual(len(self.called), 2)

    def test_empty_fields(self) -> None:
        """Many empty fields."""
        fields = b"\x00\x01a\x00" * 1900

        def frames(client: RawClient) -> Iterable[bytes]:
            for stream in streams():
                yield frame(
                    HEADERS, END_STREAM | END_HEADERS, stream, client.head() + fields
                )

        self.attacked(frames)
        self.assertEqual(self.called, [])

    def test_more_fields_than_allowed(self) -> None:
        """A few fields too many get 431, crumbs of a cookie included."""
        server = self.server_of(max_headers=50)
        for more in ([("a", "b")] * 51, [("cookie", "a=b")] * 51):
            client = RawClient(server)
            client.send(client.request(1, more=more))
            self.assertEqual(client.responses(), {1: 431})
            client.send(client.request(3, more=more[:50]))
            self.assertEqual(client.responses()[3], 200)


class SlowClientTests(AttackTestCase):
    """Clients that keep the server waiting."""

    def test_zero_window(self) -> None:
        """A client whose window stays at zero is given up, and its task ends."""
        server = self.server_of(write_timeout=10)
        client = RawClient(server, settings=pack(">HL", 4, 0))
        for stream in range(1, 21, 2):
            client.send(client.request(stream, "/large"))
        self.assertEqual(len(server.tasks), 10)
        server.advance(9)
        self.assertEqual(len(server.tasks), 10)
        for _ in range(8):
            server.advance(0.25)
        self.assertEqual(server.tasks, [])
        self.assertEqual([stream for stream, _ in client.resets()], [*range(1, 21, 2)])

    def test_zero_window_of_an_answer(self) -> None:
        """A response of the server itself is given up too."""
        server = self.server_of(write_timeout=10, max_headers=10)
        client = RawClient(server, settings=pack(">HL", 4, 0))
        client.send(client.request(1, more=[("a", "b")] * 11))
        self.assertEqual(client.responses(), {1: 431})
        for _ in range(48):
            server.advance(0.25)
        self.assertEqual(client.resets(), [(1, CANCEL)])

    def test_windows_of_one_byte(self) -> None:
        """A window that grows by single bytes is progress; its frames are limited."""

        def frames(client: RawClient) -> Iterable[bytes]:
            yield frame(SETTINGS, 0, 0, pack(">HL", 4, 0))
            yield client.request(1, "/large")
            for _ in range(5000):
                yield frame(WINDOW_UPDATE, 0, 1, pack(">L", 1))

        client = self.attacked(frames)
        self.assertLess(len(client.body(1)), 3 * USELESS)

    def test_client_that_does_not_read(self) -> None:
        """Answers to the frames of a client that reads nothing are limited."""
        server = self.server_of(write_timeout=10)
        client = RawClient(server, room=20_000)
        for stream in range(1, 201, 2):
            client.send(client.request(stream, "/large"))
        tracemalloc.start()
        for _ in range(500):
            client.send(frame(PING, 0, 0, bytes(8)) * 100)
        left = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        self.assertLess(left - len(client.memory.socket.to_server), 500_000)
        for _ in range(100):
            server.advance(0.25)
        self.assertEqual(server.tasks, [])
        self.assertTrue(client.memory.socket.server_reset)

    def test_incomplete_head(self) -> None:
        """A head that does not become complete has a deadline."""
        whole = RawClient(self.server_of()).request(1)
        for part in (whole[:12], frame(HEADERS, 0, 1, b"\x82")):
            server = self.server_of(header_timeout=5)
            client = RawClient(server)
            server.advance(3)
            client.send(part)
            server.advance(4)
            self.assertIsNone(client.error())
            for _ in range(8):
                server.advance(0.25)
            self.assertEqual(client.error(), 0)
            self.assertTrue(client.memory.closed)

    def test_no_preface(self) -> None:
        """A client that sends a part of the preface, or no settings, has a deadline."""
        for part in (b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            server = self.server_of(header_timeout=5)
            client = RawClient(server, settings=None)
            client.send(part)
            for _ in range(22):
                server.advance(0.25)
            self.assertTrue(client.memory.closed or client.memory.reset)

    def test_idle(self) -> None:
        """PING does not keep an idle connection open."""
        server = self.server_of(keep_alive=5)
        client = RawClient(server)
        client.send(client.request(1))
        for _ in range(22):
            server.advance(0.25)
            client.send(frame(PING, 0, 0, bytes(8)))
        self.assertEqual(client.error(), 0)
        self.assertTrue(client.memory.closed)
