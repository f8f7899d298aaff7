"""The blocked-reactor monitor in real processes, beside hundreds of clients."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from . import blocking_app
from .processes import ANSWER_SECONDS, CHECKOUT, LOOPBACK, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .processes import ServerProcess

APP = "tests.integration.blocking_app:app"
CLIENTS = 500
REQUEST = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


def first_lines(function: Callable[[], object]) -> range:
    """Return the numbers of the lines of a function."""
    code = function.__code__
    numbers = [number for _, _, number in code.co_lines() if number]
    return range(min(numbers), max(numbers) + 1)


class ClientsTests(SynchronousTestCase):
    """One view that blocks, beside 500 clients whose requests only wait."""

    @contextlib.contextmanager
    def crowd(self, server: ServerProcess) -> Iterator[list[socket.socket]]:
        """Open connections, and send a request on each."""
        clients = []
        try:
            for _ in range(CLIENTS):
                client = socket.create_connection((LOOPBACK, server.port), timeout=15)
                client.sendall(REQUEST % b"/wait")
                clients.append(client)
            yield clients
        finally:
            for client in clients:
                client.close()

    def read_all(self, clients: list[socket.socket]) -> None:
        """Read a response on each connection."""
        waiting = selectors.DefaultSelector()
        for client in clients:
            waiting.register(client, selectors.EVENT_READ)
        left = len(clients)
        while left:
            ready = waiting.select(ANSWER_SECONDS)
            self.assertTrue(ready, f"{left} clients got no response")
            for key, _ in ready:
                ready_client = key.fileobj
                assert isinstance(ready_client, socket.socket)
                self.assertIn(b"short\n", ready_client.recv(65536))
                waiting.unregister(ready_client)
                left -= 1
        waiting.close()

    def check(self, name: str) -> None:
        """Check that the log names the request and a line of its function once."""
        server = serve(self, APP)
        server.fetch("/")
        with self.crowd(server) as clients:
            server.wait_for(
                lambda: self.sockets_of(server) > CLIENTS, "sockets", ANSWER_SECONDS
            )
            server.fetch(f"/{name}")
            self.read_all(clients)
        server.wait_logged("no longer blocked")
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(ANSWER_SECONDS), 0)
        log = server.log()
        found = re.findall(
            rf"reactor blocked by GET /{name} \(request [0-9a-f]+-[0-9a-f]+\) at "
            r"(\S+):(\d+) in (\w+)(?: \([a-z ]+\))?: it has held up (\d+) other "
            r"requests in flight for ([0-9.]+) s, with (\d+) connections open",
            log,
        )
        self.assertEqual(len(found), 1, log)
        [(filename, line, function, others, seconds, connections)] = found
        self.assertEqual(filename, blocking_app.__file__)
        self.assertEqual(function, name)
        self.assertIn(int(line), first_lines(blocking_app.BLOCKING[f"/{name}"]))
        self.assertGreaterEqual(int(others), CLIENTS // 2)
        self.assertGreaterEqual(float(seconds), 0.25)
        self.assertGreaterEqual(int(connections), CLIENTS)
        self.assertEqual(log.count(f"GET /{name} (request"), 1, log)
        self.assertRegex(log, r"in \d block.*in " + name + r".*\(GET /" + name)

    @staticmethod
    def sockets_of(server: ServerProcess) -> int:
        """Return the number of sockets of the process."""
        count = 0
        folder = f"/proc/{server.pid}/fd"
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                count += os.readlink(f"{folder}/{name}").startswith("socket:")
        return count

    def test_python(self) -> None:
        """A view that computes in Python is named."""
        self.check("spin")

    def test_c(self) -> None:
        """A view in a C function that lets other threads run is named."""
        self.check("scrypt")

    def test_interpreter_lock(self) -> None:
        """A view in a C function that holds the interpreter lock is named."""
        self.check("sort")


class ProcessTests(SynchronousTestCase):
    """The monitor in a process as a whole."""

    def wait_for_one_thread(self, server: ServerProcess) -> None:
        """Wait until the process has no thread but the main one."""
        folder = f"/proc/{server.pid}/task"
        server.wait_for(
            lambda: len(os.listdir(folder)) == 1, "one thread", ANSWER_SECONDS
        )

    def test_access_log(self) -> None:
        """The JSON access log has the time for which a request blocked."""
        server = serve(self, APP, "--access-log=-", "--access-log-format=json")
        server.fetch("/scrypt")
        server.fetch("/")
        server.wait_for(
            lambda: server.log().count('"blocked"') == 2, "two lines", ANSWER_SECONDS
        )
        blocked = [
            float(text) for text in re.findall(r'"blocked": ([0-9.]+)', server.log())
        ]
        self.assertGreaterEqual(blocked[0], 0.25)
        self.assertEqual(blocked[1], 0.0)

    def test_off(self) -> None:
        """--blocked-after 0 turns the monitor off."""
        server = serve(self, APP, "--blocked-after=0")
        server.fetch("/spin")
        server.fetch("/")
        # The thread that starts the guardian process ends soon.
        self.wait_for_one_thread(server)
        self.assertNotIn("blocked", server.log())

    def test_limit(self) -> None:
        """A block below the limit is not reported."""
        server = serve(self, APP, "--blocked-after=60")
        server.fetch("/spin")
        server.fetch("/")
        self.assertNotIn("blocked", server.log())

    def test_thread(self) -> None:
        """The thread and its files exist only while connections are open."""
        server = serve(self, APP)
        server.fetch("/")
        tasks, files = f"/proc/{server.pid}/task", f"/proc/{server.pid}/fd"
        self.wait_for_one_thread(server)
        before = len(os.listdir(files))
        with server.connect() as client:
            client.send(REQUEST % b"/")
            client.read_until(b"short\n")
            self.assertGreater(len(os.listdir(tasks)), 1)
        self.wait_for_one_thread(server)
        self.assertEqual(len(os.listdir(files)), before)

    def test_signals(self) -> None:
        """The thread receives no signals: they must interrupt the main thread."""
        server = serve(self, APP)
        folder = f"/proc/{server.pid}/task"
        with server.connect() as client:
            client.send(REQUEST % b"/")
            client.read_until(b"short\n")
            server.wait_for(
                lambda: self.unblocked(folder) == 1, "one thread", ANSWER_SECONDS
            )

    @staticmethod
    def unblocked(folder: str) -> int:
        """Return the number of threads that receive SIGTERM."""
        count = 0
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                status = Path(folder, name, "status").read_text()
                [blocked] = re.findall(r"^SigBlk:\s*([0-9a-f]+)", status, re.MULTILINE)
                count += not int(blocked, 16) >> (signal.SIGTERM - 1) & 1
        return count

    def test_stopped_process(self) -> None:
        """A process that was stopped and continued is not blocked."""
        server = serve(self, APP)
        with server.connect() as client:
            client.send(REQUEST % b"/wait")
            client.send(REQUEST % b"/")
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(1.0)
            os.kill(server.pid, signal.SIGCONT)
            client.read_until(b"short\n")
            client.read_until(b"short\n")
        server.fetch("/")
        self.assertNotIn("blocked", server.log())

    def test_debugger(self) -> None:
        """Nothing is logged while a debugger waits for its user."""
        server = serve(self, APP)
        with server.connect() as client:
            client.send(REQUEST % b"/debug")
            server.wait_logged(r"-> breakpoint\(\)")
            time.sleep(1.0)
            self.assertNotIn("blocked", server.log())

    def test_sigterm_during_a_block(self) -> None:
        """The watchdog's timer survives the monitor, which uses the same one."""
        server = serve(self, APP, "--graceful-timeout=0")
        with server.connect() as client:
            client.send(REQUEST % b"/debug")  # blocks for ever
            server.wait_logged(r"-> breakpoint\(\)")
            time.sleep(1.0)  # until it reads
            os.kill(server.pid, signal.SIGTERM)
            self.assertEqual(server.process.wait(ANSWER_SECONDS), 1)
        self.assertIn("Timeout (0:00:05", server.log())


class PublicTests(SynchronousTestCase):
    """An embedded server."""

    def test_blocked_lines(self) -> None:
        """`blocked_lines()` has the line, with two servers of one reactor."""
        program = """
            import http.client
            from twisted.internet import reactor
            from twisted.web.server import Site
            from txgreenwsgi import GreenSite
            from txgreenwsgi.web import GreenWSGIResource
            from txgreenwsgi.monitoring import blocked_lines
            from tests.integration.blocking_app import app
            ports = [
                reactor.listenTCP(0, factory, interface="127.0.0.1")
                for factory in (GreenSite(app), Site(GreenWSGIResource(app)))
            ]
            def ask():
                for port in ports:
                    number = port.getHost().port
                    client = http.client.HTTPConnection("127.0.0.1", number)
                    client.request("GET", "/spin")
                    client.getresponse().read()
                    client.request("GET", "/")
                    client.getresponse().read()
                    client.close()
                reactor.callFromThread(reactor.callLater, 0.3, reactor.stop)
            reactor.callInThread(ask)
            reactor.run()
            for line in blocked_lines():
                print(line.function, line.blocks, line.seconds > 0.5, line.request)
            """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS * 2,
        )
        self.assertEqual(done.stdout, "spin 2 True GET /spin\n", done.stderr)
