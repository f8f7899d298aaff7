"""The soak test: a long run leaks nothing.

The load is a mix of small and large responses, uploads, files, tasks, and errors
before and after the head. One client in twenty reads slowly, and one request in
twenty is abandoned by its client. TXGREENWSGI_SOAK sets the number of requests, for
example 1000000; TXGREENWSGI_FIGURES names a file for the figures.
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
#: The fraction of the run in which caches fill and the allocator grows.
WARM_UP = 0.5
#: Most memory growth after the warm-up according to the trend, whatever the length of
#: the run.
GROWTH_KIB = 1024
#: Most additional Python objects at the end, for the same reasons.
GROWTH_OBJECTS = 3000
SECONDS_EACH = 1 / 500


class SoakTests(SynchronousTestCase):
    """One process and many requests."""

    def state(self, server: ServerProcess) -> dict[str, int]:
        """Return the counts of the process's objects while it is otherwise idle."""
        state: dict[str, int] = json.loads(server.fetch("/state").body)
        return state

    def settled(self, server: ServerProcess, before: dict[str, int]) -> dict[str, int]:
        """Return the counts after the server has noticed all disconnects."""
        deadline = time.monotonic() + 10
        while True:
            state = self.state(server)
            if time.monotonic() > deadline or all(
                state[name] <= before[name] for name in before if name != "objects"
            ):
                return state
            time.sleep(0.2)

    def test_soak(self) -> None:
        """Memory is flat after the warm-up; no task, file, timer or socket leaks."""
        server = serve(self, APP)
        for _ in range(20):
            server.fetch("/hello")
        # The server may not have noticed yet that these connections are closed.
        states = [self.state(server) for _ in range(5)]
        before = min(states, key=lambda state: state["files"])
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
            self.assertLessEqual(after[name], before[name], (name, before, after))
        self.assertLess(growth, GROWTH_KIB, samples)
        self.assertLess(after["objects"], before["objects"] + GROWTH_OBJECTS)
        self.assert_log_is_about_errors(server)
        server.ask_to_stop()
        server.wait_ended()

    def assert_log_is_about_errors(self, server: ServerProcess) -> None:
        """Assert that the log contains the deliberate failures only."""
        log = server.log()
        raised = re.findall(
            r"^\t?([\w.]*(?:Error|Exception|Disconnected)\b.*)$", log, re.M
        )
        other = [line for line in raised if "SoakError: " not in line]
        self.assertEqual(other, [])
        self.assertEqual(log.count("Traceback"), len(raised))
        self.assertNotIn("Unhandled", log)


def _slope(points: list[tuple[int, int]]) -> float:
    """Return the slope of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)
