"""The drain at SIGTERM, and notifications to systemd, of real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder

from .processes import (
    CHECKOUT,
    LOOPBACK,
    STOP_SECONDS,
    TWISTD,
    ServerProcess,
    is_alive,
    serve,
    start,
    wait_for,
)

APP = "tests.integration.edges_app:app"
PATIENCE_SECONDS = 60.0
LISTEN = f"--listen=tcp:0:interface={LOOPBACK}"


class DrainTests(SynchronousTestCase):
    """`--drain-delay`."""

    def ready(self, server: ServerProcess) -> int:
        """Return the status of the health check, on a new connection."""
        return server.fetch("/-/ready").status

    def stop(self, server: ServerProcess) -> None:
        """Send SIGTERM, and wait until the server is not ready."""
        self.assertEqual(self.ready(server), 200)
        server.ask_to_stop()
        server.wait_logged("SIGTERM: not ready any more")
        self.assertEqual(self.ready(server), 503)

    def test_delay(self) -> None:
        """New connections are served in the delay; then the shutdown begins."""
        server = serve(self, APP, "--health-path=/-", "--drain-delay=7")
        began = time.monotonic()
        self.stop(server)
        while time.monotonic() < began + 2:
            self.assertEqual(server.fetch("/").status, 200)
            self.assertEqual(self.ready(server), 503)
            self.assertEqual(server.fetch("/-/live").status, 200)
        server.wait_ended()
        self.assertGreaterEqual(time.monotonic(), began + 7)
        self.assertIn("stopping; requests in flight have 30 s to end", server.log())

    def test_second_signal(self) -> None:
        """A second signal ends the delay, and a request in flight is answered."""
        server = serve(self, APP, "--health-path=/-", "--drain-delay=600")
        self.stop(server)
        answers: list[int] = []
        waiting = threading.Thread(
            target=lambda: answers.append(server.fetch("/nap").status)
        )
        waiting.start()
        try:
            server.wait_logged("napping")
            server.ask_to_stop()
            server.wait_ended()
        finally:
            waiting.join()
        self.assertEqual(answers, [200])
        self.assertIn("second SIGTERM: accepting no more connections", server.log())

    def test_blocked(self) -> None:
        """The guardian kills a blocked server after the delay and the grace period."""
        server = serve(
            self, APP, "--drain-delay=1", "--graceful-timeout=1", "--patch=none"
        )
        with server.connect() as client:
            client.send(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_logged("blocking")
            began = time.monotonic()
            server.ask_to_stop()
            self.assertNotEqual(server.process.wait(PATIENCE_SECONDS), 0)
            self.assertGreater(time.monotonic(), began + 2)


class NotifyTests(SynchronousTestCase):
    """A server that a service manager starts."""

    def setUp(self) -> None:
        """Bind the socket of the service manager."""
        self.folder = short_folder(self)
        self.path = self.folder / "notify"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(str(self.path))
        self.manager.settimeout(PATIENCE_SECONDS)
        self.seen: list[str] = []

    def start(self, *options: str, **environ: str) -> ServerProcess:
        """Start a server."""
        return start(
            self,
            *("greenwsgi", f"--app={APP}", LISTEN, *options),
            environ={"NOTIFY_SOCKET": str(self.path), **environ},
        )

    def wait_for(self, message: str) -> str:
        """Wait for a message that begins so, and return it."""
        while True:
            received = self.manager.recv(4096).decode()
            self.seen.append(received)
            if received.startswith(message):
                return received

    def test_service(self) -> None:
        """READY, the reload of SIGHUP, and STOPPING."""
        server = self.start()
        self.wait_for("READY=1")
        self.assertEqual(server.fetch("/").status, 200)
        self.assertEqual(self.seen, ["STATUS=0 requests in flight", "READY=1"])
        self.assertEqual(server.fetch("/environ").text, "[]\n")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        server.process.send_signal(signal.SIGHUP)
        reloading = self.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        self.assertGreaterEqual(int(reloading.rpartition("=")[2]), before)
        self.wait_for("READY=1")
        server.ask_to_stop()
        self.assertEqual(
            self.wait_for("STOPPING=1"), "STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000"
        )
        server.wait_ended()
        self.assertNotIn("MAINPID", "".join(self.seen))

    def test_watchdog(self) -> None:
        """The reactor pings, and does not while it is blocked."""
        server = self.start(
            "--patch=none", "--threads-for=none", WATCHDOG_USEC="600000"
        )
        for _ in range(3):
            self.wait_for("WATCHDOG=1")
        with server.connect() as client:
            client.send(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            self.manager.settimeout(2)
            with self.assertRaises(TimeoutError):
                for _ in range(10**6):
                    self.wait_for("WATCHDOG=1")
        server.kill()

    def test_failed_start(self) -> None:
        """A server whose application cannot be imported is never ready."""
        server = ServerProcess(
            *("greenwsgi", "--app=tests.integration.nowhere:app", LISTEN),
            environ={"NOTIFY_SOCKET": str(self.path)},
        )
        self.addCleanup(server.kill)
        self.assertEqual(server.process.wait(PATIENCE_SECONDS), 1)
        self.manager.setblocking(False)
        self.assertRaises(BlockingIOError, self.manager.recv, 4096)

    def test_missing_socket(self) -> None:
        """Without a service manager at the socket, one line is logged."""
        server = self.start(NOTIFY_SOCKET="@txgreenwsgi-nowhere")
        self.assertEqual(server.fetch("/").status, 200)
        server.ask_to_stop()
        server.wait_ended()
        self.assertEqual(server.log().count("cannot notify the service manager"), 1)

    def test_daemon(self) -> None:
        """A daemon names its process before the first process ends."""
        pidfile = self.folder / "pid"
        subprocess.run(
            [
                *TWISTD,
                f"--pidfile={pidfile}",
                f"--logfile={self.folder / 'log'}",
                *("greenwsgi", f"--app={APP}", f"--listen=unix:{self.folder / 'web'}"),
            ],
            check=True,
            cwd=CHECKOUT,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(self.path),
                "WATCHDOG_USEC": "600000",
            },
        )
        pid = int(pidfile.read_text())
        self.addCleanup(_kill, pid)
        # It has arrived by the end of the first process.
        self.manager.settimeout(0)
        self.assertEqual(self.manager.recv(4096), b"MAINPID=%d" % pid)
        self.manager.settimeout(PATIENCE_SECONDS)
        self.wait_for("READY=1")
        self.wait_for("WATCHDOG=1")
        os.kill(pid, signal.SIGTERM)
        self.wait_for("STOPPING=1")
        wait_for(lambda: not is_alive(pid), "the end of the daemon", STOP_SECONDS)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
