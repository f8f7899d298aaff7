"""`--preload`: workers that a fork server forks, as real processes."""

from __future__ import annotations

import os
import re
import signal
import ssl
import time

from tests.folders import short_folder

from .processes import ANSWER_SECONDS, LOOPBACK, START_SECONDS, is_alive, wait_for
from .restart_clients import RestartClients
from .test_endpoints import write_certificate
from .test_restarts import UnderLoad
from .test_workers import Workers

RESTART_APP = "tests.integration.restart_app:app"
LISTEN = f"--listen=tcp:0:interface={LOOPBACK}"

APP = """
import os
import re
from time import sleep

importer = os.getpid()
VERSION = 1
{more}

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/sleep":
        sleep(1)
    elif path == "/hang":
        re.match(r"(a+)+$", "a" * 100 + "b")
    elif path == "/kill":
        os.kill(os.getpid(), 9)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d %d %d" % (VERSION, importer, os.getpid())]
"""


class PreloadTests(UnderLoad):
    """A server with `--preload`."""

    def start(
        self, *options: str, more: str = "", workers: int = 2, ready: bool = True
    ) -> Workers:
        """Start a server of an application in a folder of its own."""
        self.folder = short_folder(self)
        self.write(more)
        app = () if any("--app" in each for each in options) else ("--app=shop:app",)
        server = Workers(
            "greenwsgi",
            *app,
            f"--chdir={self.folder}" if app else "--chdir=.",
            LISTEN,
            "--preload",
            f"--workers={workers}",
            *options,
        )
        self.server = server
        self.addCleanup(server.kill)
        self.addCleanup(server.stop_if_running)
        if ready:
            server.wait_ready(workers)
        return server

    def write(self, more: str) -> None:
        """Write the application."""
        (self.folder / "shop.py").write_text(APP.format(more=more))

    def facts(self) -> tuple[int, int, int]:
        """Return version, importer and worker of an answer."""
        version, importer, worker = map(int, self.server.fetch("/").text.split())
        return version, importer, worker

    def fork_servers(self) -> list[int]:
        """Return the fork servers that have imported the application, in order."""
        found = re.findall(r"fork server (\d+) has imported", self.server.log())
        return [int(pid) for pid in found]

    def wait_gone(self, *pids: int) -> None:
        """Wait until processes have ended."""
        try:
            self.server.wait_for(
                lambda: not any(map(is_alive, pids)),
                lambda: f"the end of {[*filter(is_alive, pids)]}",
                ANSWER_SECONDS,
                may_end=True,
            )
        finally:
            for pid in filter(is_alive, pids):
                os.kill(pid, signal.SIGKILL)

    def test_serves(self) -> None:
        """The application is imported once, and patched before."""
        server = self.start()
        (importer,) = self.fork_servers()
        for _ in range(10):
            version, found, worker = self.facts()
            self.assertEqual((version, found), (1, importer))
            self.assertIn(worker, server.ready())
        started = time.monotonic()
        clients = [server.connect() for _ in range(20)]
        for client in clients:
            client.send(b"GET /sleep HTTP/1.0\r\n\r\n")
        for client in clients:
            with client:
                self.assertIn(b"200 OK", client.read_all())
        # One after the other, they would take at least ten seconds in two workers.
        self.assertLess(time.monotonic() - started, 10.0)
        workers = server.ready()
        server.stop_if_running()
        self.wait_gone(importer, *workers)
        self.assertNotIn("rror", server.log())

    def test_reload(self) -> None:
        """A reload imports new code in another fork server; the old one ends."""
        server = self.start()
        self.write("VERSION = 2")
        server.reload()
        self.assertEqual(self.facts()[0], 2)
        old, new = self.fork_servers()
        self.assertEqual(self.facts()[1], new)
        self.wait_gone(old)
        self.assertTrue(is_alive(new))

    def test_broken_code(self) -> None:
        """If new code cannot be imported, the old workers stay."""
        server = self.start()
        before = set(server.ready())
        self.write("1 / 0")
        server.reload()
        self.assertIn("reload failed", server.log())
        self.assertIn("ZeroDivisionError", server.log())
        (importer,) = self.fork_servers()
        self.assertEqual(self.facts()[1], importer)
        self.assertIn(self.facts()[2], before)
        # A worker that is replaced still gets the old code.
        os.kill(min(before), signal.SIGKILL)
        server.wait_ready(3)
        self.assertEqual(self.facts()[1], importer)

    def test_killed_worker(self) -> None:
        """The end of a worker by a signal is reported, and it is replaced."""
        server = self.start()
        with server.connect() as client:
            client.send(b"GET /kill HTTP/1.0\r\n\r\n")
            client.read_all()
        server.wait_ready(3)
        self.assertRegex(server.log(), r"worker \d+ .* was killed by SIGKILL")
        self.assertEqual(len(self.fork_servers()), 1)

    def test_killed_fork_server(self) -> None:
        """Workers outlive their fork server; the next ones get a new one."""
        server = self.start()
        (first,) = self.fork_servers()
        before = set(server.ready())
        os.kill(first, signal.SIGKILL)
        server.wait_logged(r"fork server \d+ has ended \(signal 9\); its workers go on")
        self.assertIn(self.facts()[2], before)
        os.kill(min(before), signal.SIGKILL)
        server.wait_ready(3)
        _, second = self.fork_servers()
        self.assertNotEqual(first, second)
        server.reload()
        self.assertIn("2 workers replaced", server.log())
        self.wait_gone(second, *before)

    def test_killed_master(self) -> None:
        """When the master is gone, workers drain, and the fork server ends."""
        server = self.start()
        pids = [*self.fork_servers(), *server.ready()]
        server.process.kill()
        server.process.wait()
        self.wait_gone(*pids)

    def test_killed_master_of_a_blocked_worker(self) -> None:
        """A worker that C code blocks for ever does not outlive the master for long."""
        server = self.start("--graceful-timeout=1")
        pids = [*self.fork_servers(), *server.ready()]
        with server.connect() as client:
            client.send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
            server.wait_logged("is blocked for")
            server.process.kill()
            server.process.wait()
            self.wait_gone(*pids)

    def test_quick_shutdown(self) -> None:
        """SIGTERM to all processes, as by a service manager, is an orderly end."""
        server = self.start()
        pids = [*self.fork_servers(), *server.ready()]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        server.ask_to_stop()
        server.wait_ended()
        self.wait_gone(*pids)

    def assert_refused(self, reason: str, more: str) -> None:
        """Fail unless the server does not start, for a reason in its log."""
        server = self.start(more=more, ready=False)
        self.assertEqual(server.process.wait(START_SECONDS), 1)
        self.assertIn("--preload is not possible: ", server.log())
        self.assertIn(reason, server.log())

    def test_reactor(self) -> None:
        """An application that imports the reactor is refused, with the module."""
        self.assert_refused(
            "twisted.internet.reactor was imported by shop",
            "from twisted.internet import reactor",
        )

    def test_thread(self) -> None:
        """So is one that has a thread, with its name."""
        self.assert_refused(
            "threads are running (poller)",
            "import threading\n"
            "event = threading.Event()\n"
            "threading.Thread(target=event.wait, name='poller', daemon=True).start()",
        )

    def test_greenlet(self) -> None:
        """So is one with a greenlet that waits."""
        self.assert_refused(
            "greenlets are alive (<greenlet",
            "import greenlet\n"
            "waiting = greenlet.greenlet(greenlet.getcurrent().switch)\n"
            "waiting.switch()",
        )

    def test_connection(self) -> None:
        """A connection that is open at the end of the import is reported."""
        self.start(
            more="import socket\n"
            "listening = socket.create_server(('127.0.0.1', 0))\n"
            "connection = socket.create_connection(listening.getsockname())"
        )
        self.assertRegex(
            self.server.log(), r"has connections to 127\.0\.0\.1:\d+ at the end"
        )

    def test_reload_during_a_slow_import(self) -> None:
        """A reload before the first worker is ready does not end the server."""
        server = self.start(
            more="import time; open('begun', 'w').close(); time.sleep(7)",
            ready=False,
        )
        wait_for((self.folder / "begun").exists, "the import", ANSWER_SECONDS)
        server.reload()
        server.wait_ready(2)
        self.assertIn("2 workers replaced", server.log())
        self.assertEqual(server.fetch("/").status, 200)

    def test_hanging_import(self) -> None:
        """An import that hangs ends at --boot-timeout, with its stack in the log."""
        server = self.start(
            "--boot-timeout=15", more="sleep(600)", workers=1, ready=False
        )
        self.assertEqual(server.process.wait(START_SECONDS), 1)
        self.assertIn("--boot-timeout", server.log())
        self.assertIn('shop.py", line ', server.log())

    def test_tls(self) -> None:
        """TLS works in each worker."""
        certificate, key = write_certificate(short_folder(self))
        server = self.start(
            f"--listen=https:0:interface={LOOPBACK}",
            f"--tls-cert={certificate}",
            f"--tls-key={key}",
        )
        context = ssl.create_default_context(cafile=str(certificate))
        found: set[int] = set()
        end = time.monotonic() + ANSWER_SECONDS
        while len(found) < 2:
            self.assertLess(time.monotonic(), end, server.log())
            answer = server.fetch("/", port=server.ports[1], context=context)
            found.add(int(answer.text.split()[2]))
        self.assertEqual(found, set(server.ready()))

    def test_load(self) -> None:
        """Reloads under load lose no request."""
        server = self.start(f"--app={RESTART_APP}")
        clients = RestartClients(self, [server.port])
        for number in (1, 2, 3):
            server.reload(number)
        self.assert_answered(clients)
