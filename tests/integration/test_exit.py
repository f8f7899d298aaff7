"""The end of the process after SIGTERM or SIGINT, whatever the application has started.

The bounds are generous: each test waits for the end, and a slow machine passes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading

from twisted.trial.unittest import SynchronousTestCase

from .exit_app import children_of
from .processes import (
    CHECKOUT,
    LOOPBACK,
    TWISTD,
    ServerProcess,
    free_ports,
    is_alive,
    serve,
    start,
    wait_for,
)

APP = "tests.integration.exit_app:app"

#: Maximum time from a signal to the end of the process, in seconds.
PATIENCE = 60

PATCHED = ("--patch=all", "--graceful-timeout=1")
UNPATCHED = ("--patch=none", "--graceful-timeout=1")
#: For requests in flight: a slow machine must not end the grace period.
PATIENT = "--graceful-timeout=30"


class ExitTestCase(SynchronousTestCase):
    """A server that is stopped."""

    def stop(self, server: ServerProcess, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status.

        Fails if a process that the server has started is left.
        """
        children = children_of(server.pid)
        self.addCleanup(self.end, children)
        server.process.send_signal(number)
        status = server.process.wait(PATIENCE)
        # The helpers of multiprocessing end when they notice that the server has.
        wait_for(lambda: not any(map(is_alive, children)), "no children", PATIENCE)
        return status

    def end(self, children: set[int]) -> None:
        """Kill processes that are left."""
        for child in filter(is_alive, children):
            os.kill(child, signal.SIGKILL)

    def wait_guarded(self, pid: int) -> None:
        """Wait until a guardian runs, and is no child of the server."""
        wait_for(
            lambda: set(guardians_of(pid)) - children_of(pid), "a guardian", PATIENCE
        )

    def use(self, path: str, *options: str) -> ServerProcess:
        """Start a server, and let a view return."""
        server = serve(self, APP, *options)
        self.assertEqual(server.fetch(path).text, "worked\n", server.log())
        return server

    def assert_stops(self, path: str, *options: str) -> ServerProcess:
        """Fail unless the server ends with status 0 after a view has returned."""
        server = self.use(path, *options)
        self.assertEqual(self.stop(server), 0, server.log())
        return server

    def assert_answers(self, path: str, *options: str) -> None:
        """Fail unless a view that waits at SIGTERM still answers."""
        server = serve(self, APP, PATIENT, *options)
        self.assertEqual(server.fetch(path).text, "worked\n", server.log())
        answers: list[str] = []
        waiting = threading.Thread(
            target=lambda: answers.append(server.fetch(f"{path}&seconds=2").text)
        )
        waiting.start()
        server.wait_logged("waits")
        self.assertEqual(self.stop(server), 0, server.log())
        waiting.join()
        self.assertEqual(answers, ["worked\n"])


def guardians_of(pid: int) -> list[int]:
    """Return the ids of the guardian processes of a server."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if str(pid).encode() in words and any(b"guardian_process" in w for w in words):
            found.append(int(entry))
    return found


class PoolTests(ExitTestCase):
    """Pools of processes and threads that the application does not close."""

    def test_executors(self) -> None:
        """Requests that wait for a ProcessPoolExecutor answer; its workers end."""
        for method in ("fork", "spawn", "forkserver"):
            self.assert_answers(f"/executor?method={method}", "--patch=all")
        self.assert_answers("/executor?method=fork", "--patch=none")

    def test_pools(self) -> None:
        """Requests that wait for a multiprocessing.Pool answer; its workers end."""
        for method in ("fork", "spawn", "forkserver"):
            self.assert_answers(f"/pool?method={method}", "--patch=all")
        self.assert_answers("/pool?method=fork", "--patch=none")

    def test_managers(self) -> None:
        """The process of a Manager ends, which needs a connection to it."""
        for method in ("fork", "spawn"):
            self.assert_answers(f"/manager?method={method}", "--patch=all")
        self.assert_answers("/manager?method=fork", "--patch=none")

    def test_threads(self) -> None:
        """Requests that wait for a ThreadPoolExecutor answer."""
        for options in ("--patch=all", "--patch=none"):
            self.assert_answers("/threads?method=", options)

    def test_feeders(self) -> None:
        """The feeder thread of a multiprocessing.Queue ends."""
        for options in (PATCHED, UNPATCHED):
            self.assert_stops("/feeder", *options)

    def test_interrupt(self) -> None:
        """After SIGINT the pool is closed too; then the process ends by SIGINT."""
        server = self.use("/executor", *PATCHED)
        self.assertEqual(self.stop(server, signal.SIGINT), -signal.SIGINT)


class TacTests(ExitTestCase):
    """A `.tac` file under twistd, which ends the process by the signal."""

    def test_exit_handlers(self) -> None:
        """The threads and exit handlers of a patched program run first."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write(
                "from twisted.application.service import Application\n"
                "from txgreenwsgi import service\n"
                "application = Application('web')\n"
                f"service({APP!r}, listen=['tcp:0:interface={LOOPBACK}'], patch='all')"
                ".setServiceParent(application)\n"
            )
        server = start(self, "-y", path)
        for view in ("executor", "pool", "handler"):
            self.assertEqual(server.fetch(f"/{view}").text, "worked\n", server.log())
        self.assertEqual(self.stop(server), -signal.SIGTERM, server.log())
        self.assertIn("job 0\njob 1\njob 2\n", server.log())


class ProcessTests(ExitTestCase):
    """Processes that never end by themselves."""

    def test_terminated(self) -> None:
        """They are terminated after the grace period."""
        for options in (PATCHED, UNPATCHED):
            server = self.assert_stops("/process", *options)
            self.assertIn("SIGTERM: sent to <ForkProcess", server.log())

    def test_killed(self) -> None:
        """They are killed if they survive SIGTERM."""
        for options in (PATCHED, UNPATCHED):
            server = self.assert_stops("/stubborn", *options)
            self.assertIn("SIGKILL: sent to <ForkProcess", server.log())


class ThreadTests(ExitTestCase):
    """Non-daemon threads, and exit handlers that need threads."""

    def test_joined(self) -> None:
        """A non-daemon thread runs to its end."""
        for patch in ("--patch=all", "--patch=none"):
            server = self.assert_stops("/short_thread?seconds=1", PATIENT, patch)
            self.assertIn("the thread has ended\n", server.log())

    def test_endless(self) -> None:
        """A non-daemon thread that never ends is left after the grace period."""
        for options, said in (
            (PATCHED, "ending <Task "),
            (UNPATCHED, "not waiting for <Thread"),
        ):
            server = self.assert_stops("/endless_thread", *options)
            self.assertIn(f"exit: time limit reached, {said}", server.log())

    def test_real_thread(self) -> None:
        """So is a real one in a patched process."""
        server = self.assert_stops("/real_thread", *PATCHED)
        self.assertIn("not waiting for <Thread", server.log())

    def test_handler(self) -> None:
        """An exit handler can wait for a daemon thread."""
        for options in (PATCHED, UNPATCHED):
            server = self.assert_stops("/handler", *options)
            self.assertIn("job 0\njob 1\njob 2\n", server.log())

    def test_endless_handler(self) -> None:
        """An exit handler that never returns does not keep others from running."""
        server = self.assert_stops("/endless_handler", *PATCHED)
        self.assertIn("Exception ignored in atexit callback", server.log())
        self.assertIn("\nthe last handler\n", server.log())


class ForkTests(ExitTestCase):
    """Forks in helper threads of a view."""

    def test_status(self) -> None:
        """The child exits with its own status, and does not stay in the thread."""
        server = serve(self, APP, *PATCHED)
        for method in ("offload", "defer", "executor"):
            answer = server.fetch(f"/forked?method={method}")
            self.assertEqual(answer.text, "status 3\n", server.log())
        self.assertEqual(self.stop(server), 0)


class BlockedTests(ExitTestCase):
    """A process that is blocked in C code."""

    def assert_killed(self, view: str) -> None:
        """Fail unless a server that is blocked is killed, and a stack is logged."""
        server = serve(self, APP, *PATCHED)
        with server.connect() as client:
            client.send(f"GET /{view} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            server.wait_logged("blocks")
            self.wait_guarded(server.pid)
            self.assertEqual(self.stop(server), -signal.SIGKILL)
        server.wait_logged(f"process {server.pid} did not end in time")
        # Of the thread that received the signal, usually the main thread.
        server.wait_logged("line [0-9]+ in ")

    def test_without_the_lock(self) -> None:
        """C code that has released the interpreter lock delays the handler."""
        self.assert_killed("computation")

    def test_with_the_lock(self) -> None:
        """C code that holds the interpreter lock keeps all Python code from running."""
        self.assert_killed("deadlock")

    def test_guardian_ends(self) -> None:
        """The guardian is no child of the server, and ends when the server has."""
        server = serve(self, APP, *PATCHED)
        self.wait_guarded(server.pid)
        wait_for(lambda: len(guardians_of(server.pid)) == 1, "one guardian", PATIENCE)
        [guardian] = guardians_of(server.pid)
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not is_alive(guardian), "the end of the guardian", PATIENCE)


class FullPipeTests(ExitTestCase):
    """Output that is not read."""

    def assert_ends(self, output: int, *options: str) -> int:
        """Return the exit status of a server whose output blocks it."""
        (port,) = free_ports(1)
        listen = f"--listen=tcp:{port}:interface={LOOPBACK}"
        arguments = ["-n", "--pidfile=", "greenwsgi", f"--app={APP}", listen, *options]
        process = subprocess.Popen(
            [*TWISTD, *arguments],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_for(lambda: connects(port), "a listening socket", PATIENCE)
        with socket.create_connection((LOOPBACK, port), PATIENCE) as client:
            client.sendall(b"GET /chatter HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(1)
            self.assertRaises(TimeoutError, client.recv, 1)
            self.wait_guarded(process.pid)
            process.terminate()
            return process.wait(PATIENCE)

    def test_pipe(self) -> None:
        """With a full pipe as standard output and error, the watchdog exits."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.assertEqual(self.assert_ends(writing, *PATCHED), 1)

    def test_socket(self) -> None:
        """With a socket, which cannot be reopened, the guardian kills the process."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            status = self.assert_ends(theirs.fileno(), *PATCHED)
        self.assertEqual(status, -signal.SIGKILL)

    def test_access_log(self) -> None:
        """An access log that is a full pipe does not keep the process alive."""
        path = self.mktemp()
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reading)
        access_log = f"--access-log={os.path.abspath(path)}"
        server = serve(self, APP, *PATCHED, access_log)
        # The running reactor has installed its signal handlers, and answers.
        server.fetch("/")
        with contextlib.suppress(TimeoutError):
            for _ in range(100):
                with server.connect() as client:
                    client.socket.settimeout(1)
                    target = "x" * 4000
                    client.send(f"GET /{target} HTTP/1.0\r\n\r\n".encode())
                    client.socket.recv(1)
        self.assertIn(self.stop(server), (0, 1))


def connects(port: int) -> bool:
    """Return whether a server accepts connections."""
    try:
        socket.create_connection((LOOPBACK, port), PATIENCE).close()
    except OSError:
        return False
    return True


class ClosedDescriptorTests(ExitTestCase):
    """A server that was started without some of the standard descriptors."""

    def start_without(self, closed: str, *options: str) -> tuple[ServerProcess, str]:
        """Start a server whose shell has closed descriptors; also return its log."""
        log = os.path.abspath(self.mktemp())
        wrapper = ("/bin/sh", "-c", f'exec "$@" {closed}', "sh")
        server = ServerProcess(
            f"--logfile={log}",
            *options,
            "greenwsgi",
            f"--app={APP}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            *PATCHED,
            wrapper=wrapper,
        )
        self.addCleanup(server.kill)
        self.patch(server, "log", lambda: read(log))
        server.wait_listening()
        return server, log

    def test_closed(self) -> None:
        """The null device takes their place, and SIGTERM ends the process."""
        for closed in ("<&- >&- 2>&-", "2>&-", "<&- >&-"):
            server, _ = self.start_without(closed)
            self.assertEqual(server.fetch("/chatter").text, "worked\n")
            for fd, redirection in enumerate(("<&-", ">&-", "2>&-")):
                if redirection in closed.split():
                    found = os.readlink(f"/proc/{server.pid}/fd/{fd}")
                    self.assertEqual(found, os.devnull, closed)
            self.assertEqual(self.stop(server), 0, server.log())

    def test_reactor_first(self) -> None:
        """With --reactor, whose descriptors come first, SIGTERM ends the process."""
        server, _ = self.start_without("<&- >&- 2>&-", "--reactor=epoll")
        self.assertEqual(server.fetch("/chatter").text, "worked\n")
        self.assertEqual(self.stop(server), 0, server.log())


def read(path: str) -> str:
    """Return the text of a file; "" if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
