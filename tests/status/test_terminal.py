"""The status as the lines of a terminal."""

from __future__ import annotations

import unicodedata
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._status.history import History
from txgreenwsgi._status.terminal import (
    ASCII_BARS,
    FAILURES,
    REQUESTS,
    Selection,
    frame,
    requests_of,
    text,
)

from .snapshots import HOSTILE, failure, request, snapshot, worker


def history_of(**more: Any) -> History:
    """Return the history of three seconds."""
    history = History()
    for second in range(3):
        workers = [worker(served=10 * second**2)]
        history.add(snapshot(time=1000.0 + second, workers=workers, **more))
    return history


def columns(line: str) -> int:
    """Return the columns that a line takes."""
    return sum(
        0
        if unicodedata.combining(char)
        else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in line
    )


def crowd() -> Any:
    """Return a snapshot with more rows than a terminal has."""
    snapshot_of = snapshot()
    return snapshot(
        workers=[
            worker(
                number,
                requests=100,
                in_flight=[
                    request(request_id=f"{number}f6a03c2-{n}", age=100.0 * number + n)
                    for n in range(50)
                ],
            )
            for number in range(1, 9)
        ],
        routes=snapshot_of["routes"] * 30,
        blocked=snapshot_of["blocked"] * 9,
        failures=[failure(failure_id=f"a-{n}") for n in range(9)],
    )


class FrameTests(SynchronousTestCase):
    """`frame`."""

    def test_content(self) -> None:
        """The text shows what the page shows."""
        shown = text(frame(snapshot(), history_of(), 140))
        for expected in (
            *("shop:app: 1 worker, master pid 4000, up 1 min 11 s", "req/s 30"),
            *("http://127.0.0.1:8080/", "lag 2.0 ms", "4001", "50 MiB", "ready"),
            *("1f6a-2", "/orders/7", "2.50 s sleep(30)"),
            *("GET /orders/*", "0.20 s", "1.02 s"),
            *("/srv/shop/reports.py:88 in totals", "ValueError: no such order"),
            "shop.py:12 in order",
        ):
            self.assertIn(expected, shown)

    def test_sizes(self) -> None:
        """A screen of any size has requests and workers, and its lines fit."""
        for width, height in [(80, 23), (80, 10), (20, 5), (200, 60), (132, 43)]:
            lines = frame(crowd(), history_of(), width, height, Selection())
            self.assertLessEqual(len(lines), height)
            for line in lines:
                self.assertEqual(columns(line.text), width, line)
        lines = frame(crowd(), history_of(), 80, 23, Selection())
        shown = text(lines)
        for title in ("WORKER", "REQUEST", "ROUTE", "LINE THAT BLOCKED", "FAILURE"):
            self.assertIn(title, shown)
        self.assertIn("8f6a03c2-49", shown)

    def test_hostile(self) -> None:
        """Text of clients does not control the terminal, and keeps the columns."""
        wide = "/\u65e5\u672c\u8a9e" * 30
        rows = [request(path=HOSTILE, method=HOSTILE, waiting_on=HOSTILE)]
        rows.append(request(path=wide, waiting_on=wide))
        lines = frame(
            snapshot(
                app=HOSTILE,
                workers=[worker(in_flight=rows)],
                failures=[failure(error=HOSTILE, place=HOSTILE)],
            ),
            history_of(),
            80,
            24,
        )
        for line in lines:
            self.assertTrue(line.text.isprintable(), line)
            self.assertEqual(columns(line.text), 80, line)

    def test_selection(self) -> None:
        """The row of the cursor is on the screen."""
        snapshot_of = crowd()
        requests = requests_of(snapshot_of)
        for index in (0, 5, 120, 399, 5000):
            lines = frame(snapshot_of, history_of(), 80, 23, Selection(REQUESTS, index))
            (chosen,) = [line.text for line in lines if line.style == "selected"]
            expected = requests[min(index, 399)]["request_id"]
            self.assertTrue(chosen.startswith(expected), (index, chosen))
        lines = frame(snapshot_of, history_of(), 80, 23, Selection(FAILURES, 1))
        self.assertEqual([line.style for line in lines].count("selected"), 1)

    def test_nothing(self) -> None:
        """A server without workers or requests has a screen."""
        nothing = snapshot(workers=[], routes=[], blocked=[], failures=[], target=0)
        shown = text(frame(nothing, History(), 80, 24, Selection()))
        self.assertIn("no requests in flight", shown)
        self.assertIn("pid 4000", shown)

    def test_blocked_worker(self) -> None:
        """A worker that is blocked stands out."""
        workers = [worker(in_flight=None, beat_age=3.0, current="1f-2 GET /x")]
        lines = frame(snapshot(workers=workers), history_of(), 100, 24)
        (bad,) = [line.text for line in lines if line.style == "bad"]
        self.assertIn("blocked in 1f-2 GET /x", bad)

    def test_ascii(self) -> None:
        """Charts can be drawn without block characters."""
        lines = frame(snapshot(), history_of(), 80, 24, bars=ASCII_BARS)
        self.assertTrue(lines[1].text.isascii())
