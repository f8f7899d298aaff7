"""The promises of production, each with real processes, clients and figures.

By default the numbers are small. For the full ones, and a line of figures from each
test, which takes about two hours::

    TXGREENWSGI_PROMISES=full python -m twisted.trial tests.integration.test_promises

A number such as 0.1 in place of `full` is the share of the full numbers.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.folders import short_folder

from .command_server import COMMAND, CommandServer
from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    START_SECONDS,
    free_ports,
    is_alive,
    wait_for,
)
from .restart_clients import RestartClients, percentile
from .services import HAProxy
from .test_endpoints import write_certificate
from .test_restarts import UnderLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

_GIVEN = os.environ.get("TXGREENWSGI_PROMISES", "0")
#: The share of the full numbers; 0 for the small ones.
SHARE = 1.0 if _GIVEN == "full" else float(_GIVEN)
FULL = SHARE > 0

#: The clients of most tests: with connections that are kept alive, and without.
KEPT, CLOSING = 20, 5


def size(small: int, full: int) -> int:
    """Return a number of the size in the environment."""
    return max(small, round(SHARE * full))


class PromiseTestCase(UnderLoad):
    """A server with workers, on a TCP port, plain or with TLS."""

    least_answered = 100
    variable = ""  # `report` prints

    context: ssl.SSLContext | None = None

    def serve(
        self,
        *options: str,
        workers: int = 2,
        tls: bool = False,
        port: int | None = None,
    ) -> CommandServer:
        """Start a server and wait until all workers are ready."""
        self.folder = short_folder(self)
        self.code = self.folder / "code"
        self.code.write_text("works")
        self.control = self.folder / "control.sock"
        if port is None:
            (port,) = free_ports(1)
        kind = "tcp"
        words = list(options)
        if tls:
            kind = "https"
            certificate, key = write_certificate(self.folder)
            words += [f"--tls-cert={certificate}", f"--tls-key={key}"]
            self.context = ssl.create_default_context(cafile=str(certificate))
            self.context.check_hostname = False
        server = CommandServer(
            self,
            [
                "tests.integration.promises_app:app",
                f"--workers={workers}",
                f"--listen={kind}:{port}:interface={LOOPBACK}",
                "--health-path=/-",
                f"--control={self.control}",
                *words,
            ],
            CHECKOUT,
            port,
            environ={"PROMISES_CODE": str(self.code)},
        )
        server.wait_ready(self.context)
        wait_for(lambda: len(self.workers_of(server)) == workers, f"{workers} workers")
        return server

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a subcommand on the control socket, to its end."""
        name, *rest = words
        return subprocess.run(
            [*COMMAND, name, f"--control={self.control}", *rest],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def reload(self, count: int = 1) -> None:
        """Reload so many times, each to its end."""
        for _ in range(count):
            done = self.command("reload")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def workers_of(self, server: CommandServer) -> set[int]:
        """Return the process ids in the responses of a server to new connections."""
        found = set()
        for _ in range(40):
            found.add(int(server.ask("/", self.context).headers["X-Worker"]))
        return found

    def clients(
        self, ports: Sequence[int], *, kept: int = KEPT, closing: int = CLOSING
    ) -> RestartClients:
        """Start clients."""
        tls = self.context is not None
        return RestartClients(self, ports, kept=kept, closing=closing, tls=tls)

    def report(self, text: str) -> None:
        """Print figures, in a full run."""
        if FULL:
            print(f"\n{self.id().rpartition('.')[2].removeprefix('test_')}: {text}")


class ReloadTests(PromiseTestCase):
    """No reload loses a request."""

    RELOADS = size(2, 200)

    def reload_under_load(self, *options: str, tls: bool = False) -> None:
        """Reload while clients send requests."""
        server = self.serve(*options, tls=tls)
        before = self.workers_of(server)
        clients = self.clients([server.port])
        begun = time.monotonic()
        self.reload(self.RELOADS)
        passed = time.monotonic() - begun
        outcome = self.assert_answered(clients)
        self.assertEqual(self.workers_of(server) & before, set())
        server.stop()
        self.report(
            f"{self.RELOADS} reloads in {passed:.0f} s, "
            f"{outcome.answered} answered, 0 failed"
        )

    def test_reloads_plain(self) -> None:
        """Reloads under kept-alive and close-per-request clients: no failed request."""
        self.reload_under_load()

    def test_reloads_tls(self) -> None:
        """The same over TLS."""
        self.reload_under_load(tls=True)

    def test_reloads_preload(self) -> None:
        """The same with workers that are forked after the import."""
        self.reload_under_load("--preload")

    def test_reloads_behind_haproxy(self) -> None:
        """The same behind HAProxy, which never repeats anything."""
        server = self.serve()
        with HAProxy([server.port], retries=0) as proxy:
            clients = self.clients([proxy.port])
            self.reload(self.RELOADS)
            outcome = self.assert_answered(clients)
        self.report(f"{self.RELOADS} reloads, {outcome.answered} answered, 0 failed")

    def test_scaling(self) -> None:
        """More and fewer workers, under load: no failed request."""
        rounds = size(1, 20)
        server = self.serve()
        clients = self.clients([server.port])
        for _ in range(rounds):
            for count in (4, 1, 3, 2):
                done = self.command("scale", str(count))
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                wait_for(
                    lambda: len(self.workers_of(server)) == count,  # noqa: B023
                    f"{count} workers",
                )
        outcome = self.assert_answered(clients)
        self.report(f"{4 * rounds} changes, {outcome.answered} answered, 0 failed")

    def test_descriptors(self) -> None:
        """Reloads leave no descriptor open in the master."""
        reloads = size(5, 1000)
        server = self.serve(workers=1)
        folder = Path(f"/proc/{server.process.pid}/fd")

        def descriptors() -> int:
            return len(list(folder.iterdir()))

        self.reload()
        before = descriptors()
        self.reload(reloads)
        wait_for(lambda: descriptors() <= before, f"{before} descriptors")
        self.report(f"{reloads} reloads, {before} descriptors before and after")

    def test_storm(self) -> None:
        """Fifty HUPs in a second, during a reload, cause one more."""
        server = self.serve()
        before = self.workers_of(server)
        self.code.write_text("wait")  # the first reload ends behind the last HUP
        for _ in range(50):
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        self.code.write_text("works")

        def begun() -> int:
            return server.log().count("reloading 2 workers")

        def ended() -> int:
            return server.log().count("reload: 2 workers replaced")

        wait_for(lambda: begun() == ended() > 0, "the end of the reloads")
        time.sleep(1)  # a third one would begin now
        self.assertEqual((begun(), ended()), (2, 2))
        self.assertEqual(self.workers_of(server) & before, set())
        self.report(f"50 HUPs, {begun()} reloads")


class BrokenCodeTests(PromiseTestCase):
    """New code that does not start leaves the old workers alone."""

    def refuse(self, code: str, *mentioned: str, options: Sequence[str] = ()) -> None:
        """Reload broken code under load, then code that works."""
        server = self.serve(*options)
        before = self.workers_of(server)
        clients = self.clients([server.port])
        self.code.write_text(code)
        begun = time.monotonic()
        done = self.command("reload")
        passed = time.monotonic() - begun
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 1, output)
        for text in mentioned:
            self.assertIn(text, output)
        self.assertEqual(self.workers_of(server), before)
        self.code.write_text("works")
        self.reload()
        self.assertEqual(self.workers_of(server) & before, set())
        outcome = self.assert_answered(clients)
        self.report(
            f"status 1 after {passed:.1f} s, {outcome.answered} answered, 0 failed"
        )

    def test_import_error(self) -> None:
        """A module that is missing: status 1, and the command names it."""
        self.refuse("import", "a_module_that_does_not_exist")

    def test_exception(self) -> None:
        """An exception at import: status 1, with its traceback."""
        self.refuse("raise", "ValueError", "the new code is broken", "promises_app.py")

    def test_hang(self) -> None:
        """An import that does not end: status 1 after the boot timeout."""
        # A boot takes about a second; on a busy machine, several.
        self.refuse("hang", "10 s", options=["--boot-timeout=10"])


class KillTests(PromiseTestCase):
    """A process that dies takes only its own requests with it."""

    def test_worker(self) -> None:
        """A killed worker fails its own requests only, and is replaced."""
        kills = size(2, 20)
        server = self.serve()
        clients = self.clients([server.port])
        killed: set[int] = set()
        for _ in range(kills):
            victim = min(self.workers_of(server) - killed)
            killed.add(victim)
            os.kill(victim, signal.SIGKILL)
            wait_for(
                lambda: len(self.workers_of(server) - killed) == 2, "a replacement"
            )
        outcome = clients.finish()
        for failure in outcome.failures:
            # 0: a new connection, which the killed worker had already accepted.
            self.assertIn(failure.worker, {0, *killed}, failure)
        # Each client has one request at a time.
        self.assertLessEqual(len(outcome.failures), kills * (KEPT + CLOSING))
        self.assertGreater(outcome.answered, len(outcome.failures))
        server.stop()
        self.report(
            f"{kills} kills, {outcome.answered} answered, "
            f"{len(outcome.failures)} failed, all of them of the killed workers"
        )

    def test_master(self) -> None:
        """Without their master, workers drain and end; a new one takes the port."""
        server = self.serve()
        workers = self.workers_of(server)
        waiting = socket.create_connection((LOOPBACK, server.port), ANSWER_SECONDS)
        with waiting:
            waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
            server.process.kill()
            server.process.wait()
            begun = time.monotonic()
            self.assertIn(b" 200 OK", waiting.recv(65536))
        wait_for(
            lambda: not any(map(is_alive, workers)),
            "the workers end",
        )
        passed = time.monotonic() - begun
        successor = self.serve(port=server.port)
        self.assertEqual(self.workers_of(successor) & workers, set())
        successor.stop()
        self.report(f"the workers ended after {passed:.1f} s, the port was free")


class HungWorkerTests(PromiseTestCase):
    """A view that never returns from C."""

    TIMEOUT = 2

    def test_hung_worker(self) -> None:
        """The worker is named, killed and replaced; others do not notice."""
        rounds = size(1, 10)
        server = self.serve(f"--worker-timeout={self.TIMEOUT}")
        waits: list[float] = []
        usual: list[float] = []
        beside: list[float] = []
        for number in range(1, rounds + 1):
            before = self.workers_of(server)
            clients = self.slow_clients(server)
            time.sleep(self.TIMEOUT)
            for latencies in clients.finish().latencies.values():
                usual += latencies
            clients = self.slow_clients(server)
            time.sleep(1)
            hung: list[str] = []
            caller = threading.Thread(target=self.hang, args=(server, hung))
            begun = time.monotonic()
            caller.start()
            wait_for(
                lambda: server.log().count("killing ") == number,  # noqa: B023
                "the worker is killed",
            )
            waits.append(time.monotonic() - begun)
            outcome = clients.finish()
            caller.join(START_SECONDS)
            self.assertEqual(hung, ["closed"])
            wait_for(
                lambda: len(self.workers_of(server) - before) == 1,  # noqa: B023
                "a replacement",
            )
            survivors = before & self.workers_of(server)
            self.assertEqual(len(survivors), 1, server.log())
            for failure in outcome.failures:
                self.assertNotIn(failure.worker, survivors)
            for pid in survivors:
                beside += outcome.latencies[pid]
        log = server.log()
        self.assertRegex(log, r"GET /hang\b")
        self.assertIn("promises_app.py", log)  # the stack
        server.stop()
        p99_usual, p99_beside = (
            percentile(sorted(each), 0.99) for each in (usual, beside)
        )
        self.report(
            f"{rounds} hung workers, killed after at most {max(waits):.1f} s with "
            f"--worker-timeout {self.TIMEOUT}; p99 of the other worker meanwhile "
            f"{p99_beside * 1000:.1f} ms, before {p99_usual * 1000:.1f} ms"
        )
        # A busy machine adds to all of them.
        self.assertLess(max(waits), self.TIMEOUT + (1 if FULL else 15))
        self.assertLess(p99_beside, max(0.05 if FULL else 1.0, 5 * p99_usual))

    def slow_clients(self, server: CommandServer) -> RestartClients:
        """Start clients that leave the processor to the servers."""
        return RestartClients(
            self, [server.port], kept=16, closing=0, paths=["/"], pause=0.05
        )

    def hang(self, server: CommandServer, results: list[str]) -> None:
        """Ask for the view, and wait until the connection is closed."""
        with socket.create_connection((LOOPBACK, server.port), START_SECONDS) as sock:
            sock.sendall(b"GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                results.append("answered" if sock.recv(65536) else "closed")
            except ConnectionResetError:
                results.append("closed")


class BalanceTests(PromiseTestCase):
    """The kernel distributes connections evenly."""

    def test_balance(self) -> None:
        """Each of four workers gets its share of new connections, within 15 %."""
        connections = size(3000, 10_000)
        server = self.serve(workers=4)
        counts: dict[str, int] = {}
        for _ in range(connections):
            worker = server.ask("/").headers["X-Worker"]
            counts[worker] = counts.get(worker, 0) + 1
        self.assertEqual(len(counts), 4)
        mean = connections / 4
        worst = max(counts.values()) / mean
        self.assertLess(worst, 1.15)
        self.assertGreater(min(counts.values()) / mean, 0.85)
        server.stop()
        self.report(
            f"{connections} connections: {sorted(counts.values())}, "
            f"the most is {worst:.3f} of the mean"
        )
