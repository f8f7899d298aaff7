"""The shared page, and the pulse of a worker."""

from __future__ import annotations

import mmap
import os
import time
from typing import Any, NamedTuple, cast

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._serving.notes import note_request
from txgreenwsgi._workers.page import (
    RECORD_BYTES,
    RECORDS,
    Page,
    Record,
    SharedMetrics,
    create_page,
    metrics_of_record,
)
from txgreenwsgi._workers.pulse import Limits, Pulse, resident_bytes


class PageTests(SynchronousTestCase):
    """Records."""

    def setUp(self) -> None:
        """Make a page."""
        self.fd = create_page()
        self.addCleanup(os.close, self.fd)
        self.page = Page(self.fd)
        self.addCleanup(self.page.close)

    def test_beat(self) -> None:
        """The master reads the values that a worker has written."""
        record = Record(self.fd, 3)
        self.assertEqual(self.page.read(3).beats, 0)
        before = time.monotonic()
        record.beat(0.5, 17, 40, 1000)
        beat = self.page.read(3)
        self.assertEqual(beat.beats, 1)
        self.assertTrue(before <= beat.time <= time.monotonic())
        self.assertEqual(
            (beat.lag, beat.requests, beat.connections, beat.served, beat.current),
            (0.5, 17, 40, 1000, ""),
        )
        self.assertEqual(self.page.read(2).beats, 0)
        self.assertEqual(self.page.read(4).beats, 0)
        self.page.clear(3)
        self.assertEqual(self.page.read(3).beats, 0)

    def test_last_record(self) -> None:
        """The last record fits."""
        record = Record(self.fd, RECORDS - 1)
        record.beat(-1.0, 1, 1, 1)
        head = FakeHead("b" * 100, b"/" + b"c" * 1000)
        note_request(record.note(), "a" * 100, cast("Any", head))
        beat = self.page.read(RECORDS - 1)
        self.assertEqual(beat.lag, 0.0)
        self.assertEqual(beat.current, "a" * 16 + " " + "b" * 8 + " /" + "c" * 199)

    def test_page_of_another_version(self) -> None:
        """A worker of a newer version serves below a master with a shorter page."""
        os.ftruncate(self.fd, RECORDS // 4 * RECORD_BYTES)
        Record(self.fd, 3).beat(0.5, 17, 40, 1000)
        self.assertEqual(os.pread(self.fd, 1, 3 * RECORD_BYTES), b"\1")

    def test_current_request(self) -> None:
        """The request is named without its query, until it has ended."""
        note = Record(self.fd, 1).note()
        note.request_id, note.method = "1f6a-2b", "GET"
        note.target = b"/reports/7?password=x"
        self.assertEqual(self.page.read(1).current, "")
        note.running = 1
        self.assertEqual(self.page.read(1).current, "1f6a-2b GET /reports/7")
        note.request_id, note.method, note.target = "2", "POST", b"/a\x1b[31m\xff"
        self.assertEqual(self.page.read(1).current, "2 POST /a?[31m\xff")
        with self.assertRaises(ValueError):
            note.target = b"/" + b"a" * 8000
        with self.assertRaises(ValueError):
            note.method = "M" * 256
        note.running = 0
        self.assertEqual(self.page.read(1).current, "")

    def test_reported_blocks(self) -> None:
        """A block that the worker reports counts until the next beat."""
        record = Record(self.fd, 1)
        record.beat(0, 0, 0, 0)
        self.assertFalse(self.page.read(1).reported)
        record.note_block()
        self.assertTrue(self.page.read(1).reported)
        record.beat(0, 0, 0, 0)
        self.assertFalse(self.page.read(1).reported)

    def test_mean_connections(self) -> None:
        """A worker reads the mean of those that serve."""
        first, second = Record(self.fd, 1), Record(self.fd, 2)
        self.assertEqual(first.mean_connections(5), 5)
        self.page.write_serving([1, 2])
        self.assertEqual(first.mean_connections(5), 2.5)
        self.assertEqual(second.mean_connections(3), 4.0)
        self.page.write_serving([2])
        self.assertEqual(second.mean_connections(3), 3.0)
        self.page.write_serving(list(range(1, 1000)))
        self.assertGreater(first.mean_connections(5), 0)


class MetricsTests(SynchronousTestCase):
    """The part of the page for metrics."""

    def setUp(self) -> None:
        """Make a page."""
        self.fd = create_page(metrics=True)
        self.addCleanup(os.close, self.fd)
        self.page = SharedMetrics(self.fd, layout=77, size=3)
        self.addCleanup(self.page.close)

    def numbers(self, record: int, layout: int = 77, size: int = 3) -> Any:
        """Return the numbers of a worker."""
        return metrics_of_record(self.fd, record, layout, size)

    def test_numbers(self) -> None:
        """The master reads the numbers that a worker has written."""
        self.assertIsNone(self.page.read(3))
        numbers = self.numbers(3)
        self.assertEqual(self.page.read(3), (0.0, 0.0, 0.0))
        numbers[0], numbers[2] = 1, 2.5
        self.assertEqual(self.page.read(3), (1.0, 0.0, 2.5))
        for other in (2, 4):
            self.assertIsNone(self.page.read(other))
        self.page.clear(3)
        self.assertIsNone(self.page.read(3))

    def test_last_record(self) -> None:
        """The numbers of the last record fit, and no beat overlaps them."""
        numbers = self.numbers(RECORDS - 1)
        numbers[2] = 5
        Record(self.fd, RECORDS - 1).beat(0.5, 17, 40, 1000)
        self.assertEqual(self.page.read(RECORDS - 1), (0.0, 0.0, 5.0))

    def test_other_version(self) -> None:
        """Numbers in the layout of another version are not read."""
        self.assertFalse(self.page.is_of_other_version(3))
        numbers = self.numbers(3, layout=78)
        numbers[0] = 1
        self.assertIsNone(self.page.read(3))
        self.assertTrue(self.page.is_of_other_version(3))

    def test_page_without_metrics(self) -> None:
        """A worker below a master without metrics has no place for them."""
        fd = create_page()
        self.addCleanup(os.close, fd)
        self.assertIsNone(metrics_of_record(fd, 3, 77, 3))


class FakeHead(NamedTuple):
    """The head of a request."""

    method: str
    target: bytes


class FakeRecord:
    """Records the beats."""

    def __init__(self) -> None:
        self.beats: list[tuple[float, int, int, int]] = []

    def beat(self, *values: Any) -> None:
        """Record one."""
        self.beats.append(values)


class FakeServer:
    """The counters of a server."""

    open_connections = 4

    def __init__(self) -> None:
        self.table = self
        self.exchanges = {1, 2}
        self.count = 0

    @property
    def ended(self) -> int:
        """Return the number of requests that have ended."""
        return max(self.count - len(self.exchanges), 0)


class PulseTests(SynchronousTestCase):
    """Beats and limits."""

    def pulse(self, **limits: Any) -> None:
        """Start the pulse of a worker."""
        self.clock, self.record, self.server = Clock(), FakeRecord(), FakeServer()
        self.reasons: list[str] = []
        self.resident = 100 << 20
        Pulse(
            cast("Any", self.record),
            self.clock,
            cast("Any", self.server),
            Limits(**limits),
            self.reasons.append,
            lambda: self.resident,
        ).start()

    def test_beats(self) -> None:
        """A worker beats four times a second, and tells its delay."""
        self.pulse()
        self.assertEqual(self.record.beats, [(0.0, 2, 4, 0)])
        self.server.count = 7
        self.clock.advance(0.25)
        self.clock.advance(0.75)
        # Requests in flight are not served yet.
        self.assertEqual(self.record.beats[1:], [(0.0, 2, 4, 5), (0.5, 2, 4, 5)])
        self.assertEqual(self.reasons, [])

    def test_requests(self) -> None:
        """A number of requests is a reason, once, and again after some time."""
        self.pulse(max_requests=100)
        self.server.count = 99
        self.clock.advance(0.25)
        self.assertEqual(self.reasons, [])
        self.server.count = 100
        for _ in range(100):
            self.clock.advance(0.25)
        self.assertEqual(self.reasons, ["100 requests (--max-requests)"])
        for _ in range(30):
            self.clock.advance(0.25)
        self.assertEqual(len(self.reasons), 2)

    def test_jitter(self) -> None:
        """Workers add a random number, up to the jitter."""
        found = set()
        for _ in range(50):
            self.pulse(max_requests=100, max_requests_jitter=3)
            while not self.reasons:
                self.clock.advance(0.25)
                self.server.count += 1
            found.add(self.server.count - 1)
        self.assertTrue(found <= {100, 101, 102, 103})
        self.assertGreater(len(found), 1)

    def test_lifetime(self) -> None:
        """So is a time."""
        self.pulse(max_lifetime=60.0)
        for _ in range(239):
            self.clock.advance(0.25)
        self.assertEqual(self.reasons, [])
        self.clock.advance(0.25)
        self.assertEqual(self.reasons, ["60 s of service (--max-lifetime)"])

    def test_memory(self) -> None:
        """So is memory."""
        self.pulse(max_rss=200 << 20)
        self.clock.advance(1)
        self.assertEqual(self.reasons, [])
        self.resident = 201 << 20
        self.clock.advance(1)
        self.assertEqual(self.reasons, ["201 MiB of memory (--max-rss)"])

    def test_memory_limit_below_the_start_size(self) -> None:
        """A limit that every worker exceeds does not replace them all the time."""
        with capturedLogs() as logs:
            self.pulse(max_rss=50 << 20)
        [event] = logs
        self.assertIn(
            "--max-rss is 50 MiB, but a new worker has 100 MiB",
            formatEvent(event),
        )
        for _ in range(239):
            self.clock.advance(0.25)
        self.assertEqual(self.reasons, [])
        self.clock.advance(0.25)
        self.assertEqual(self.reasons, ["100 MiB of memory (--max-rss)"])

    def test_resident_bytes(self) -> None:
        """The memory of this process is plausible."""
        # New pages: the allocator may have kept those of freed objects.
        with mmap.mmap(-1, 50_000_000) as pages:
            before = resident_bytes()
            pages.write(b"x" * len(pages))
            self.assertGreater(resident_bytes() - before, len(pages) // 2)
