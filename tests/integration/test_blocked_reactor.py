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


def wait_for(found: Callable[[], bool], server: ServerProcess) -> None:
    """Wait until `found` returns True; fail with the log after some time."""
    end = time.monotonic() + ANSWER_SECONDS
    while not found():
        if time.monotonic() > end:
            raise AssertionError(server.log())
        time.sleep(0.02)


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
            wait_for(lambda: self.sockets_of(server) > CLIENTS, server)
            server.fetch(f"/{name}")
            self.read_all(clients)
        wait_for(lambda: "no longer blocked" in server.log(), server)
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

    def test_interpreter_lock_asleep(self) -> None:
        """So is one that holds the lock and does not compute."""
        self.check("sleep")

    def test_operator(self) -> None:
        """An operator has no point at which the interpreter switches threads."""
        self.check("power")


class ProcessTests(SynchronousTestCase):
    """The monitor in a process as a whole."""

    def test_access_log(self) -> None:
        """The JSON access log has the time for which a request blocked."""
        server = serve(self, APP, "--access-log=-", "--access-log-format=json")
        server.fetch("/scrypt")
        server.fetch("/")
        wait_for(lambda: server.log().count('"blocked"') == 2, server)
        blocked = [
            float(text) for text in re.findall(r'"blocked": ([0-9.]+)', server.log())
        ]
        self.assertGreaterEqual(blocked[0], 0.25)
        self.assertEqual(blocked[1], 0.0)

    def test_off(self) -> None:
        """--blocked-after 0 turns the monitor off."""
        server = serve(self, APP, "--blocked-after=0")
        server.fetch("/sleep")
        server.fetch("/")
        self.assertEqual(len(os.listdir(f"/proc/{server.pid}/task")), 1)
        self.assertNotIn("blocked", server.log())

    def test_limit(self) -> None:
        """A block below the limit is not reported."""
        server = serve(self, APP, "--blocked-after=60")
        server.fetch("/sleep")
        server.fetch("/")
        self.assertNotIn("blocked", server.log())

    def test_thread(self) -> None:
        """The thread and its files exist only while connections are open."""
        server = serve(self, APP)
        server.fetch("/")
        tasks, files = f"/proc/{server.pid}/task", f"/proc/{server.pid}/fd"
        wait_for(lambda: len(os.listdir(tasks)) == 1, server)
        before = len(os.listdir(files))
        with server.connect() as client:
            client.send(REQUEST % b"/")
            client.read_until(b"short\n")
            self.assertGreater(len(os.listdir(tasks)), 1)
        wait_for(lambda: len(os.listdir(tasks)) == 1, server)
        self.assertEqual(len(os.listdir(files)), before)

    def test_signals(self) -> None:
        """The thread receives no signals: they must interrupt the main thread."""
        server = serve(self, APP)
        folder = f"/proc/{server.pid}/task"
        with server.connect() as client:
            client.send(REQUEST % b"/")
            client.read_until(b"short\n")
            wait_for(lambda: self.unblocked(folder) == 1, server)

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
            wait_for(lambda: "-> breakpoint()" in server.log(), server)
            time.sleep(1.0)
            self.assertNotIn("blocked", server.log())

    def test_sigterm_during_a_block(self) -> None:
        """The watchdog's timer survives the monitor, which uses the same one."""
        server = serve(self, APP, "--graceful-timeout=0")
        with server.connect() as client:
            client.send(REQUEST % b"/debug")  # blocks for ever
            wait_for(lambda: "-> breakpoint()" in server.log(), server)
            time.sleep(1.0)  # until it reads
            os.kill(server.pid, signal.SIGTERM)
            self.assertEqual(server.process.wait(ANSWER_SECONDS), 1)
        self.assertIn("Timeout (0:00:05", server.log())


class TimerTests(SynchronousTestCase):
    """The timer of faulthandler, which other code uses too."""

    def run_program(self, source: str) -> str:
        """Run a program and return its output."""
        prefix = """\
            import faulthandler, os, sys, tempfile, threading, time
            from txgreenwsgi._serving.stack_dumps import StackDumps, share_timer
            me = threading.get_ident()
            theirs = tempfile.TemporaryFile()
            def told():
                return os.pread(theirs.fileno(), 100000, 0).count(b"Timeout")
            def wait_until(found):
                end = time.monotonic() + 30
                while time.monotonic() < end:
                    if found():
                        return True
                    time.sleep(0.01)
                return False
            """
        program = textwrap.dedent(prefix) + textwrap.dedent(source)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS * 2,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_dump(self) -> None:
        """The stacks are written when the timer is not postponed."""
        output = self.run_program(
            """
            dumps = StackDumps()
            dumps.arm(0.05)
            stacks = []
            def blocks():
                return wait_until(lambda: stacks.extend(dumps.collect(me)) or stacks)
            assert blocks()
            print(*[line.function for line in stacks[0]])
            dumps.close()
            """
        )
        self.assertIn("blocks", output)

    def test_postponed(self) -> None:
        """A timer that is postponed in time writes nothing."""
        self.run_program(
            """
            dumps = StackDumps()
            for _ in range(20):
                dumps.arm(30)
            assert dumps.collect(me) == []
            dumps.disarm()
            dumps.arm(0.05)
            dumps.disarm()
            time.sleep(0.2)
            assert dumps.collect(me) == []
            """
        )

    def test_full_pipe(self) -> None:
        """Dumps that nobody reads do not block, and do not grow."""
        self.run_program(
            """
            def deep(depth):
                if depth:
                    return deep(depth - 1)
                time.sleep(1)
            dumps = StackDumps()
            dumps.arm(0.001)
            deep(90)
            assert len(dumps.collect(me)) < 100
            dumps.close()
            """
        )

    def test_timer_of_the_application(self) -> None:
        """A timer that the application armed before is left alone."""
        self.run_program(
            """
            share_timer()
            faulthandler.dump_traceback_later(0.3, file=theirs)
            dumps = StackDumps()
            assert wait_until(lambda: dumps.arm(60) or told())
            faulthandler.cancel_dump_traceback_later()
            dumps.arm(0.05)
            assert wait_until(lambda: dumps.collect(me))
            """
        )

    def test_later_timer_of_the_application(self) -> None:
        """So is one that it arms later, and one of an early import."""
        for function in ("faulthandler.dump_traceback_later", "early"):
            self.run_program(
                f"""
                early = faulthandler.dump_traceback_later
                share_timer()
                dumps = StackDumps()
                dumps.arm(60)
                {function}(0.3, file=theirs)
                assert wait_until(lambda: dumps.arm(60) or told())
                """
            )

    def test_wrong_arguments(self) -> None:
        """Arguments that faulthandler refuses do not stop our timer."""
        self.run_program(
            """
            share_timer()
            share_timer()
            dumps = StackDumps()
            try:
                faulthandler.dump_traceback_later(-1)
            except ValueError:
                pass
            faulthandler.cancel_dump_traceback_later()
            dumps.arm(0.05)
            assert wait_until(lambda: dumps.collect(me))
            """
        )

    def test_fork(self) -> None:
        """The child of a fork exits, and may use the timer; the parent goes on."""
        self.run_program(
            """
            dumps = StackDumps()
            dumps.arm(60)
            child = os.fork()
            if not child:
                faulthandler.dump_traceback_later(60)
                faulthandler.cancel_dump_traceback_later()
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            dumps.arm(0.05)
            assert wait_until(lambda: dumps.collect(me))
            """
        )


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
                    client.request("GET", "/sleep")
                    client.getresponse().read()
                    client.request("GET", "/")
                    client.getresponse().read()
                    client.close()
                reactor.callFromThread(reactor.callLater, 0.3, reactor.stop)
            reactor.callInThread(ask)
            reactor.run()
            for line in blocked_lines():
                print(line.function, line.blocks, line.seconds > 1.5, line.request)
            """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS * 2,
        )
        self.assertEqual(done.stdout, "sleep 2 True GET /sleep\n", done.stderr)
