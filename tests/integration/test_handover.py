"""Metrics, status page and control socket across reloads and new masters."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.folders import short_folder

from .processes import LOOPBACK, STOP_SECONDS, free_ports, is_alive, wait_for
from .test_control import ControlCase
from .test_metrics import scraped, total
from .test_workers import wait_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .test_workers import Workers

APP = "tests.integration.metrics_app:app"
REGISTRY = "tests.integration.metrics_app:REGISTRY"
#: A module of a test, which a development reload imports again.
MODULE = "from tests.integration.metrics_app import REGISTRY, app\n"

REQUESTS = "txgreenwsgi_requests_total"
RELOADS = "txgreenwsgi_reloads_total"
RESTARTS = "txgreenwsgi_worker_restarts_total"
OF_RELOADS = (RESTARTS, "reason=reload")

#: Number of requests between two changes.
LOAD = 20
#: Number of changes of each kind.
ROUNDS = 3
#: Descriptors that have not changed for so long are those of a server at rest.
SETTLE_SECONDS = 1.0


def descriptors(pid: int) -> Counter[str]:
    """Return the kinds of the open descriptors of a process, with their numbers."""
    found: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            found[re.sub(r"\d+", "N", target)] += 1
    return found


def settled_descriptors(pid: int) -> Counter[str]:
    """Return the same when it no longer changes: closed connections have ended."""
    found = descriptors(pid)
    since = time.monotonic()
    while time.monotonic() - since < SETTLE_SECONDS:
        time.sleep(0.05)
        if (now := descriptors(pid)) != found:
            found, since = now, time.monotonic()
    return found


class HandoverCase(ControlCase):
    """A server with metrics, a status page and a control socket on fixed addresses.

    Attributes:
        server: the first process.
        master: the process id of the master.
    """

    server: Workers
    master: int

    def setUp(self) -> None:
        """Choose the addresses."""
        super().setUp()
        self.metrics_port, self.status_port = free_ports(2)

    def options(self, app: str = APP, registry: str = REGISTRY) -> Sequence[str]:
        """Return the options of the server."""
        return (
            f"--app={app}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            f"--control={self.path}",
            f"--metrics=tcp:{LOOPBACK}:{self.metrics_port}",
            f"--metrics-application={registry}",
            f"--status=tcp:{LOOPBACK}:{self.status_port}",
        )

    def begin_server(self, *options: str, workers: int) -> None:
        """Start the server and wait for its workers."""
        self.server = self.begin(*options)
        self.server.wait_ready(workers)
        self.master = self.server.pid

    def load(self, sent: int = 0) -> int:
        """Send requests; return how many were sent, `sent` included."""
        for _ in range(LOAD):
            self.assertEqual(self.server.fetch("/").status, 200)
        return sent + LOAD

    def samples(self) -> dict[tuple[str, str], float]:
        """Return the samples of the metrics."""
        return scraped(self.server, self.metrics_port)

    def snapshot(self) -> Any:
        """Return the snapshot of the status page."""
        answer = self.server.fetch("/snapshot.json", port=self.status_port)
        self.assertEqual(answer.status, 200)
        return json.loads(answer.body)

    def check_answers(self, workers: int, sent: int) -> dict[tuple[str, str], float]:
        """Fail unless all three answer for the master and its workers.

        Args:
            workers: the number of workers.
            sent: the number of requests that are counted.

        Returns:
            The samples of the metrics.
        """
        self.check_status(lambda: self.answer("status"), workers)
        self.check_status(self.snapshot, workers)
        self.assertEqual(self.server.fetch("/", port=self.status_port).status, 200)
        samples = self.samples()
        self.assertEqual(total(samples, REQUESTS), sent)
        self.assertEqual(total(samples, "shop_orders_total"), sent)
        self.assertEqual(total(samples, "txgreenwsgi_workers"), workers)
        return samples

    def check_status(self, ask: Callable[[], Any], workers: int) -> None:
        """Fail unless an answer is that of the master, and soon has its workers.

        A worker that was replaced ends some time after its last request, and a snapshot
        for open pages may be a second old.
        """

        def answer() -> Any:
            found = ask()
            return found if len(found["workers"]) == workers else None

        found = self.server.wait_for(answer, f"{workers} workers", may_end=True)
        self.assertEqual(found["pid"], self.master)

    def replace(self, number: int) -> None:
        """Replace the master, and wait until the new one has opened its listeners.

        Args:
            number: counts the new masters.
        """
        os.kill(self.master, signal.SIGUSR2)
        self.wait_succeeded(number)

    def wait_succeeded(self, number: int) -> None:
        """Wait until a new master has opened its listeners; see `replace`."""
        old = self.master
        self.server.wait_count("the last master has ended", number)
        self.master = int(re.findall(r"master (\d+) starts", self.server.log())[-1])
        self.addCleanup(wait_gone, self.master, 10.0)
        for option in ("--metrics", "--status"):
            self.server.wait_count(f"{option}: listening on", number + 1)
        # It is opened last.
        wait_for(lambda: Path(self.path).is_socket(), "the control socket")
        wait_for(lambda: not is_alive(old), "the end of the old master")

    def end_master(self) -> None:
        """Stop the last master, which has logged no failure."""
        os.kill(self.master, signal.SIGTERM)
        wait_for(lambda: not is_alive(self.master), "the end of the master")
        self.assertNotIn("Traceback", self.server.log())

    def open_pages(self) -> list[socket.socket]:
        """Open a page of events, and a connection to the control socket."""
        page = socket.create_connection((LOOPBACK, self.status_port), STOP_SECONDS)
        self.addCleanup(page.close)
        page.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while b"data: <header>" not in data:
            data += page.recv(65536)
        control = socket.socket(socket.AF_UNIX)
        self.addCleanup(control.close)
        control.settimeout(STOP_SECONDS)
        control.connect(self.path)
        control.sendall(b'{"command": "status"}\n')
        self.assertTrue(control.recv(65536))
        return [page, control]

    def assert_ended(self, pages: Sequence[socket.socket]) -> None:
        """Fail unless the server ends connections."""
        for page in pages:
            with contextlib.suppress(ConnectionResetError):
                while page.recv(65536):
                    pass

    def worker_descriptors(self) -> Counter[str]:
        """Return the open descriptors of a worker at rest, of either one."""
        found: Counter[str] = Counter()
        for worker in self.answer("status")["workers"]:
            found |= settled_descriptors(worker["pid"])
        return found

    def assert_descriptors(self, pid: int, expected: Counter[str]) -> None:
        """Fail unless a process soon has no more open descriptors than these."""
        wait_for(
            lambda: not descriptors(pid) - expected,
            lambda: f"descriptors too many: {descriptors(pid) - expected}",
        )

    def assert_worker_descriptors(self, expected: Counter[str]) -> None:
        """Fail unless no worker has more open descriptors than these."""
        for worker in self.answer("status")["workers"]:
            self.assert_descriptors(worker["pid"], expected)


class ReloadTests(HandoverCase):
    """Reloads: the master and its listeners stay, the workers are replaced."""

    def check_reloads(self, *options: str) -> None:
        """Reload under the eyes of a page that is open."""
        self.begin_server(*self.options(), "--workers=2", *options, workers=2)
        sent = self.load()
        self.check_answers(2, sent)
        before = settled_descriptors(self.master)
        of_workers = self.worker_descriptors()
        pages = self.open_pages()
        for number in range(1, ROUNDS + 1):
            self.server.reload(number)
            sent = self.load(sent)
            samples = self.check_answers(2, sent)
            self.assertEqual(samples[OF_RELOADS], 2 * number)
            self.assertEqual(samples[RELOADS, ""], number)
        # They were never interrupted.
        pages[0].recv(65536)
        pages[1].sendall(b'{"command": "status"}\n')
        self.assertTrue(pages[1].recv(65536))
        for page in pages:
            page.close()
        self.assert_descriptors(self.master, before)
        self.assert_worker_descriptors(of_workers)
        self.stop(self.server)
        self.assertNotIn("Traceback", self.server.log())
        self.assertFalse(os.path.exists(self.path))

    def test_workers(self) -> None:
        """SIGHUP: addresses answer, counters go on, and no descriptor is left open."""
        self.check_reloads()

    def test_preload(self) -> None:
        """The same with a fork server, which is replaced too."""
        self.check_reloads("--preload")

    def test_development(self) -> None:
        """`--reload`: changes of a file keep the counters too, and SIGUSR2 works."""
        folder = short_folder(self)
        module = folder / "site_code.py"
        module.write_text(MODULE)
        options = self.options("site_code:app", "site_code:REGISTRY")
        self.begin_server(*options, f"--chdir={folder}", "--reload", workers=1)
        sent = self.load()
        self.check_answers(1, sent)
        before = settled_descriptors(self.master)
        pages = self.open_pages()
        for number in range(1, ROUNDS + 1):
            # In one step: an empty file would be another change.
            new = folder / "new"
            new.write_text(MODULE + f"# change {number}\n" * number)
            new.replace(module)
            self.server.wait_ready(1 + number)
            sent = self.load(sent)
            samples = self.check_answers(1, sent)
            self.assertEqual(samples[OF_RELOADS], number)
        self.server.reload()
        self.assertEqual(self.check_answers(1, sent)[OF_RELOADS], ROUNDS + 1)
        pages[0].recv(65536)
        for page in pages:
            page.close()
        self.assert_descriptors(self.master, before)
        self.replace(1)
        self.check_answers(1, 0)
        self.check_answers(1, self.load())
        self.assert_descriptors(self.master, before)
        self.end_master()


class NewMasterTests(HandoverCase):
    """SIGUSR2: the listeners pass to a new master, whose counters begin at 0."""

    def check_replacements(self, *options: str) -> None:
        """Replace the master, with pages open and with a reload in between."""
        self.begin_server(*self.options(), "--workers=2", *options, workers=2)
        self.check_answers(2, self.load())
        first = settled_descriptors(self.master)
        of_workers = self.worker_descriptors()
        later: Counter[str] = Counter()
        for number in range(1, ROUNDS + 1):
            pages = self.open_pages()
            self.replace(number)
            self.assert_ended(pages)
            # Nothing was served since the listeners were opened.
            samples = self.check_answers(2, 0)
            self.assertEqual((samples[RELOADS, ""], samples[OF_RELOADS]), (0, 0))
            sent = self.load()
            self.check_answers(2, sent)
            if not later:
                later = settled_descriptors(self.master)
            self.assert_descriptors(self.master, later)
            self.assert_worker_descriptors(of_workers)
        self.assertEqual(later - first, Counter(), "descriptors of the old master")
        os.kill(self.master, signal.SIGHUP)
        self.server.wait_reloads(1)
        samples = self.check_answers(2, sent)
        self.assertEqual(samples[OF_RELOADS], 2)
        self.end_master()
        self.assertFalse(os.path.exists(self.path))

    def test_workers(self) -> None:
        """The addresses answer for the new master; open pages end with the old one."""
        self.check_replacements()

    def test_preload(self) -> None:
        """The same with fork servers."""
        self.check_replacements("--preload")

    def test_slow_request(self) -> None:
        """While the old master drains, the addresses answer for it."""
        self.begin_server(*self.options(), "--workers=1", workers=1)
        sent = self.load()
        with self.server.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
            wait_for(
                lambda: self.samples()["txgreenwsgi_requests_in_flight", ""] == 1,
                "the request",
            )
            os.kill(self.master, signal.SIGUSR2)
            self.server.wait_logged(r"new master \d+ is ready; this one ends")
            self.assertTrue(self.answer("status")["stopping"])
            self.assertTrue(self.snapshot()["stopping"])
            # These are served by the new master's workers.
            self.load()
            self.assertEqual(total(self.samples(), REQUESTS), sent)
            client.send(b"x")
            self.assertIn(b"200 OK", client.read_until(b"\r\n\r\n"))
        self.wait_succeeded(1)
        self.check_answers(1, LOAD)
