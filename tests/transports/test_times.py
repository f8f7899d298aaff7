"""Where the time of a request goes: records, Server-Timing, and slow requests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.logger import capturedLogs, formatEvent

from .harness import TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .harness import Environ, Start

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def nap(environ: Environ, start: Start) -> Iterable[bytes]:
    """Sleep for two seconds before the response."""
    environ["txgreenwsgi.sleep"](2)
    start("200 OK", TEXT)
    return [b"rested"]


def stream(environ: Environ, start: Start) -> Iterator[bytes]:
    """Sleep between two blocks."""
    start("200 OK", [*TEXT, ("Server-Timing", "db;dur=5")])
    yield b"one"
    environ["txgreenwsgi.sleep"](3)
    yield b"two"


class TimesCases(Cases):
    """`slow_after`, `server_timing`, and the times of records."""

    def logged(self, events: list[Any]) -> list[str]:
        """Return the lines about slow requests."""
        texts = [formatEvent(event) for event in events]
        return [text for text in texts if text.startswith("slow request")]

    def test_slow_request(self) -> None:
        """The end of a slow request says where its time went."""
        server = self.serve(nap, slow_after=2.0)
        with capturedLogs() as events:
            server.begin(target="/nap?q=1")
            server.advance(2)
        [line] = self.logged(list(events))
        self.assertRegex(
            line,
            r"\Aslow request: GET /nap\?q=1 \(request [0-9a-f]+-1\) took 2\.00 s "
            r"\(finished, status 200\): 0\.00 s queued, 0\.00 s in the application, "
            r"2\.00 s waiting, longest 2\.00 s on sleep\(2\); it blocked the reactor "
            r"for 0\.00 s\Z",
        )
        [record] = self.records
        self.assertEqual((record.queued, record.waiting), (0.0, 2.0))

    def test_fast_request(self) -> None:
        """A request below the limit is not logged."""
        server = self.serve(nap, slow_after=2.5)
        with capturedLogs() as events:
            server.begin()
            server.advance(2)
        self.assertEqual(self.logged(list(events)), [])

    def test_queue(self) -> None:
        """The time in the queue is no time of the application."""
        server = self.serve(nap, slow_after=0.5, max_in_flight=1)
        with capturedLogs() as events:
            server.begin()
            server.begin()
            server.advance(4)
        self.assertEqual(
            [(record.queued, record.waiting) for record in self.records],
            [(0.0, 2.0), (2.0, 2.0)],
        )
        lines = self.logged(list(events))
        self.assertIn("took 4.00 s", lines[1])
        self.assertIn(": 2.00 s queued, 0.00 s in the application, 2.00 s w", lines[1])

    def test_refused(self) -> None:
        """A request without an application is never slow."""
        server = self.serve(nap, slow_after=0.5, max_in_flight=1, queue_timeout=1)
        with capturedLogs() as events:
            server.begin()
            server.begin()
            server.advance(2)
        self.assertEqual(len(self.logged(list(events))), 1)
        self.assertEqual(
            [(record.status, record.waiting) for record in self.records],
            [(503, 0.0), (200, 2.0)],
        )

    def test_server_timing(self) -> None:
        """The response has the times up to its head."""
        server = self.serve(nap, server_timing=True, max_in_flight=1)
        first, second = server.begin(), server.begin()
        server.advance(4)
        self.assert_complete(first, b"rested")
        self.assert_complete(second, b"rested")
        for reply, queued in ((first, "0.0"), (second, "2000.0")):
            self.assertEqual(
                reply.header("Server-Timing"),
                f"queue;dur={queued}, app;dur=0.0, wait;dur=2000.0, blocked;dur=0.0",
            )

    def test_server_timing_of_a_stream(self) -> None:
        """The application's own field stays; later waits are not known yet."""
        server = self.serve(stream, server_timing=True)
        reply = server.begin()
        server.advance(3)
        self.assert_complete(reply, b"onetwo")
        self.assertEqual(
            reply.header("Server-Timing"),
            "db;dur=5, queue;dur=0.0, app;dur=0.0, wait;dur=0.0, blocked;dur=0.0",
        )
        [record] = self.records
        self.assertEqual((record.duration, record.waiting), (3, 3))

    def test_server_timing_of_other_responses(self) -> None:
        """Files, empty responses and HEAD have the field once."""

        def app(environ: Environ, start: Start) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            start("204 No Content" if path == "/204" else "200 OK", TEXT)
            if path == "/file":
                wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](
                    open(__file__, "rb")  # noqa: SIM115 - the wrapper closes it
                )
                return wrapper
            return [b""] if path == "/204" else [b"one", b"two"]

        server = self.serve(app, server_timing=True)
        for method, path in (("GET", "/file"), ("GET", "/204"), ("HEAD", "/list")):
            reply = server.begin(method, path)
            self.assertEqual(len(reply.values("Server-Timing")), 1, path)
            found = reply.header("Server-Timing") or ""
            self.assertEqual(len(re.findall("dur=", found)), 4)

    def test_off(self) -> None:
        """By default there is no field, and records have no times of waits."""
        server = self.serve(nap)
        reply = server.begin()
        server.advance(2)
        self.assertIsNone(reply.header("Server-Timing"))
        [record] = self.records
        self.assertEqual((record.queued, record.waiting), (0.0, 0.0))

    def test_traceparent(self) -> None:
        """A record has the Traceparent field of its request."""
        server = self.serve(nap)
        server.begin(headers=[("Traceparent", TRACEPARENT)])
        server.begin()
        server.advance(2)
        self.assertEqual(
            sorted(record.traceparent for record in self.records), ["", TRACEPARENT]
        )


globals().update(on_every_transport(TimesCases))
