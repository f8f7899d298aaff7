"""A server that is used for long is as it was at the beginning.

The load is everything at once: small and large answers, uploads, files, tasks,
errors before and behind the head, one client in twenty reads slowly, one request in
twenty is left by its client in the middle. TXGREENWSGI_SOAK is the number of
requests, for instance 1000000; TXGREENWSGI_FIGURES a file for the figures.
"""

from __future__ import annotations

import json
import os
import re
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import LOOPBACK, ServerProcess, serve

from .figures import note
from .load import Load

APP = "tests.endurance.soak_app:app"
REQUESTS = int(os.environ.get("TXGREENWSGI_SOAK", "20000"))
CLIENTS = 60
SAMPLES = 50
#: The part of the run in which caches fill and the allocator finds its size.
WARM_UP = 0.5
#: By how much the memory may grow from then on, after its trend, however long the
#: run is.
GROWTH_KIB = 1024
#: How many objects more there may be at the end, for the same reasons.
GROWTH_OBJECTS = 3000
SECONDS_EACH = 1 / 500


class SoakTests(SynchronousTestCase):
    """One process and many requests."""

    def state(self, server: ServerProcess) -> dict[str, int]:
        """What the process holds, while it answers nothing but this."""
        state: dict[str, int] = json.loads(server.fetch("/state").body)
        return state

    def settled(self, server: ServerProcess, before: dict[str, int]) -> dict[str, int]:
        """The same, once those who left have been noticed."""
        deadline = time.monotonic() + 10
        while True:
            state = self.state(server)
            if time.monotonic() > deadline or all(
                state[name] <= before[name] for name in before if name != "objects"
            ):
                return state
            time.sleep(0.2)

    def test_soak(self) -> None:
        """Memory is flat after the warm-up; no task, file, timer or socket is left."""
        server = serve(self, APP)
        for _ in range(20):
            server.fetch("/hello")
        before = self.state(server)
        samples: list[tuple[int, int]] = []
        load = Load((LOOPBACK, server.port), REQUESTS, CLIENTS, seed=1)
        started = time.monotonic()
        load.run(
            30 + REQUESTS * SECONDS_EACH,
            REQUESTS // SAMPLES,
            lambda done: samples.append((done, server.resident_kib())),
        )
        seconds = time.monotonic() - started
        after = self.settled(server, before)
        warm = [(done, kib) for done, kib in samples if done >= REQUESTS * WARM_UP]
        growth = _slope(warm) * (warm[-1][0] - warm[0][0])
        note(
            "soak",
            requests=REQUESTS,
            seconds=round(seconds, 1),
            aborted=load.aborted,
            errors=load.sent["/error"] + load.sent["/error-late"],
            resident_kib_warm=warm[0][1],
            resident_kib_end=warm[-1][1],
            trend_kib=round(growth),
            trend_bytes_each=round(_slope(warm) * 1024, 2),
            before=before,
            after=after,
        )
        for name in ("tasks", "requests", "timers", "readers", "writers", "files"):
            self.assertEqual(after[name], before[name], (name, before, after))
        self.assertLess(growth, GROWTH_KIB, samples)
        self.assertLess(after["objects"], before["objects"] + GROWTH_OBJECTS)
        self.assert_log_is_about_errors(server)
        server.ask_to_stop()
        server.wait_ended()

    def assert_log_is_about_errors(self, server: ServerProcess) -> None:
        """Nothing has failed but what was to fail."""
        log = server.log()
        raised = re.findall(
            r"^\t?([\w.]*(?:Error|Exception|Disconnected)\b.*)$", log, re.M
        )
        other = [line for line in raised if "SoakError: " not in line]
        self.assertEqual(other, [])
        self.assertEqual(log.count("Traceback"), len(raised))
        self.assertNotIn("Unhandled", log)


def _slope(points: list[tuple[int, int]]) -> float:
    """The slope of the line that fits best."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)
