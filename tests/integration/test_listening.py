"""Sockets, pidfiles and signals of real processes."""

from __future__ import annotations

import errno
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.folders import short_folder
from txgreenwsgi import service
from txgreenwsgi._server.endpoints import make_endpoint

from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    STOP_SECONDS,
    TWISTD,
    RawClient,
    ServerProcess,
    serve,
    start,
)

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
APP = "--app=examples.hello:app"

#: Passes a descriptor on as systemd does, and becomes the command.
PASS_ON = """
import os, sys
fd, names = int(sys.argv[1]), sys.argv[2]
os.dup2(fd, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.argv[3], sys.argv[3:])
"""


def ask(path: Path) -> bytes:
    """Return the response at a UNIX socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(ANSWER_SECONDS)
    with RawClient(sock) as client:
        sock.connect(str(path))
        client.send(GET)
        return client.read_all()


def hello(environ: Any, start_response: Any) -> list[bytes]:
    """Answer with one block."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def has_ipv6() -> bool:
    """Return whether the loopback interface has an IPv6 address."""
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


class AdoptedTests(TestCase):
    """Sockets that another process has opened."""

    def setUp(self) -> None:
        """Open a socket as systemd does, with a mode of its own."""
        self.path = short_folder(self) / "web"
        self.listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listening.close)
        self.listening.bind(str(self.path))
        self.path.chmod(0o600)
        self.listening.listen(5)

    def state(self) -> tuple[int, int, int]:
        """Return inode, mode and owner of the socket."""
        status = self.path.stat()
        return status.st_ino, status.st_mode, status.st_uid

    def check(self, listen: str, names: str = "") -> None:
        """Serve twice on the socket; a client that comes in between waits."""
        before = self.state()
        os.set_inheritable(self.listening.fileno(), True)
        for _ in range(2):
            fd = str(self.listening.fileno())
            server = ServerProcess(
                *("greenwsgi", APP, f"--listen={listen}"),
                wrapper=(sys.executable, "-c", PASS_ON, fd, names),
                pass_fds=(self.listening.fileno(),),
            )
            self.addCleanup(server.kill)
            self.assertIn(b"Hello, world!", ask(self.path))
            self.assertEqual(self.state(), before)
            server.ask_to_stop()
            server.wait_ended()
            self.assertEqual(self.state(), before)

    def test_systemd(self) -> None:
        """Mode, owner and path of a socket of systemd stay; a restart serves it."""
        self.check("systemd:domain=UNIX:name=web.socket", "web.socket")

    def test_without_names(self) -> None:
        """LISTEN_FDNAMES is optional."""
        self.check("systemd:domain=UNIX:index=0")

    def test_fd(self) -> None:
        """A descriptor is named by its number."""
        self.check("fd:3")

    async def test_mode_and_path_of_another_user(self) -> None:
        """Nothing is done to the path: it may belong to another user, or be gone."""
        self.path.unlink()
        self.path.write_text("not a socket any more")
        before = self.state()
        fd = os.dup(self.listening.fileno())
        port: Any = await make_endpoint(reactor, f"fd:{fd}").listen(Factory())
        self.assertRaises(OSError, os.fstat, fd)
        await port.stopListening()
        self.assertEqual(self.state(), before)
        # The socket still listens.
        self.assertTrue(
            self.listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )

    async def test_tcp(self) -> None:
        """A TCP socket is served, and listens on after the port is closed."""
        with socket.create_server((LOOPBACK, 0)) as shared:
            endpoint = make_endpoint(reactor, f"fd:{os.dup(shared.fileno())}")
            port: Any = await endpoint.listen(Factory())
            self.assertEqual(port.getHost().port, shared.getsockname()[1])
            await port.stopListening()
            socket.create_connection(shared.getsockname()).close()


class UnixSocketTests(TestCase):
    """UNIX sockets that the server makes itself."""

    def setUp(self) -> None:
        """Choose a path."""
        self.path = short_folder(self) / "web"

    def started(self) -> ServerProcess:
        """Start a server at the path."""
        return start(self, "greenwsgi", APP, f"--listen=unix:{self.path}")

    def test_killed(self) -> None:
        """After a kill the server starts again, whatever process has its pid."""
        server = self.started()
        self.assertIn(b"Hello", ask(self.path))
        server.kill()
        lock = Path(f"{self.path}.lock")
        lock.unlink()
        lock.symlink_to(str(os.getpid()))
        again = self.started()
        self.assertIn(b"Hello", ask(self.path))
        again.ask_to_stop()
        again.wait_ended()
        self.assertEqual(os.listdir(self.path.parent), [])

    def test_live_server(self) -> None:
        """A second server at the same path does not start, and disturbs nothing."""
        server = self.started()
        # The lock is not what protects it.
        Path(f"{self.path}.lock").unlink()
        second = subprocess.run(
            [
                *TWISTD,
                "-n",
                "--pidfile=",
                "greenwsgi",
                APP,
                f"--listen=unix:{self.path}",
            ],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STOP_SECONDS * 2,
            check=False,
        )
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"cannot listen on 'unix:{self.path}' ([Errno", second.stdout)
        self.assertIn("stop the process that uses this address", second.stdout)
        self.assertIn(b"Hello", ask(self.path))
        server.ask_to_stop()
        server.wait_ended()
        self.assertEqual(os.listdir(self.path.parent), [])

    def test_replaced(self) -> None:
        """A server that stops leaves the socket of its successor alone."""
        endpoint = make_endpoint(reactor, f"unix:{self.path}")
        port: Any = self.successResultOf(endpoint.listen(Factory()))
        self.path.unlink()
        Path(f"{self.path}.lock").unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(self.path))
            port.connectionLost(None)
            self.assertTrue(self.path.exists())

    def test_changed_directory(self) -> None:
        """A relative path is removed though the directory was changed."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.path.parent)
        endpoint = make_endpoint(reactor, "unix:web:mode=600")
        port: Any = self.successResultOf(endpoint.listen(Factory()))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        os.chdir("/")
        port.connectionLost(None)
        self.assertEqual(os.listdir(self.path.parent), [])

    def test_failed_start(self) -> None:
        """A start that fails leaves no lock behind."""
        self.path.write_text("data")
        endpoint = make_endpoint(reactor, f"unix:{self.path}")
        failure = self.failureResultOf(endpoint.listen(Factory()))
        self.assertEqual(failure.value.socketError.errno, errno.EEXIST)
        self.assertEqual(os.listdir(self.path.parent), ["web"])


class Ipv6Tests(TestCase):
    """IPv4 and IPv6 side by side."""

    def setUp(self) -> None:
        """Require an IPv6 address of the loopback interface."""
        if not has_ipv6():
            self.fail("the loopback interface has no IPv6 address")

    async def listen(self, text: str) -> Any:
        """Listen on an endpoint until the end of the test."""
        port: Any = await make_endpoint(reactor, text).listen(Factory())
        self.addCleanup(port.stopListening)
        return port

    def v6only(self, port: Any) -> int:
        """Return the socket option of a port."""
        value: int = port.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return value

    async def test_same_port(self) -> None:
        """An IPv4 and an IPv6 endpoint share a port number."""
        number = (await self.listen("tcp:0")).getHost().port
        self.assertEqual(self.v6only(await self.listen(f"tcp6:{number}")), 1)

    async def test_any_ipv6_endpoint(self) -> None:
        """It is the address that counts, not the kind of endpoint."""
        for text in (r"tcp:0:interface=\:\:1", "haproxy:tcp6:0"):
            self.assertEqual(self.v6only(await self.listen(text)), 1)

    async def test_both(self) -> None:
        """With v6only=0, an IPv6 endpoint accepts IPv4 too."""
        for text in ("tcp6:0:v6only=0", r"haproxy:tcp:0:interface=\:\::v6only=0"):
            port = await self.listen(text)
            self.assertEqual(self.v6only(port), 0)
            number = port.getHost().port
            socket.create_connection((LOOPBACK, number)).close()

    def test_environ(self) -> None:
        """SERVER_NAME has brackets; a client by IPv4 has an IPv4 address."""
        server = start(
            self,
            "greenwsgi",
            "--app=wsgiref.simple_server:demo_app",
            "--listen=tcp6:0:v6only=0",
        )
        for host, name in ((LOOPBACK, "127.0.0.1"), ("::1", "[::1]")):
            sock = socket.create_connection((host, server.port), ANSWER_SECONDS)
            with RawClient(sock) as client:
                client.send(GET)
                answer = client.read_all().decode()
            self.assertIn(f"SERVER_NAME = {name!r}\n", answer)
            self.assertIn(f"REMOTE_ADDR = {host!r}\n", answer)


class PidfileTests(TestCase):
    """twistd's pidfile."""

    def test_pid_in_use_again(self) -> None:
        """The pidfile of a killed server whose pid is in use does not prevent a start.

        That of a running process does.
        """
        pidfile = short_folder(self) / "web.pid"
        pidfile.write_text(str(os.getpid()))
        command = [
            *(*TWISTD, "-n", "--pidfile", str(pidfile), "greenwsgi"),
            *("--app=nonexistent", "--listen=tcp:0"),
        ]

        def run() -> str:
            return subprocess.run(
                command,
                cwd=CHECKOUT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=STOP_SECONDS * 2,
                check=False,
            ).stdout

        self.assertIn("Another twistd server is running", run())
        self.assertTrue(pidfile.exists())
        os.utime(pidfile, (1, 1))
        self.assertIn("txgreenwsgi cannot start: --app 'nonexistent'", run())
        self.assertFalse(pidfile.exists())


class SignalTests(TestCase):
    """Signals to a process."""

    def test_none_ends_the_process(self) -> None:
        """Signals for other servers do not end it, and SIGQUIT stops it in order."""
        server = serve(self, "examples.hello:app")
        for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU"):
            server.process.send_signal(getattr(signal, name))
            server.wait_logged(name)
        self.assertIn("Hello", server.fetch("/").text)
        server.process.send_signal(signal.SIGQUIT)
        server.wait_ended()

    def test_during_the_import(self) -> None:
        """They do not end it while the application is imported."""
        folder = short_folder(self)
        folder.joinpath("slowly.py").write_text(
            "import os, signal, threading\n"
            "os.kill(os.getpid(), signal.SIGUSR1)\n"
            "os.kill(os.getpid(), signal.SIGHUP)\n"
            "os.kill(os.getpid(), signal.SIGQUIT)\n"
            "def app(environ, start_response): pass\n"
        )
        server = serve(self, "slowly:app", f"--chdir={folder}")
        server.wait_ended()
        self.assertIn("SIGUSR1: reopened", server.log())

    def test_handlers_of_the_application(self) -> None:
        """The application's own handler is called."""
        folder = short_folder(self)
        folder.joinpath("handling.py").write_text(
            "import signal\n"
            "signal.signal(signal.SIGUSR1, lambda *_: print('my own handler'))\n"
            "print('imported')\n"
            "def app(environ, start_response): pass\n"
        )
        server = serve(self, "handling:app", f"--chdir={folder}")
        server.wait_logged("imported")
        server.process.send_signal(signal.SIGUSR1)
        server.wait_logged("my own handler")
        self.assertNotIn("SIGUSR1: reopened", server.log())

    def test_closed_terminal(self) -> None:
        """A server in the foreground stops when its terminal is closed."""
        log = short_folder(self) / "log"
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(CHECKOUT)
            os.execv(
                TWISTD[0],
                [
                    *(*TWISTD, "-n", "--pidfile=", f"--logfile={log}", "greenwsgi"),
                    *(APP, f"--listen=tcp:0:interface={LOOPBACK}"),
                ],
            )
        self.addCleanup(self.reap, child)
        end = time.monotonic() + ANSWER_SECONDS
        while not log.exists() or "listening on" not in log.read_text():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        os.close(terminal)
        _, status = os.waitpid(child, 0)
        self.child_has_ended = True
        self.assertEqual(os.waitstatus_to_exitcode(status), 0, log.read_text())
        self.assertIn("Server Shut Down.", log.read_text())

    child_has_ended = False

    def reap(self, child: int) -> None:
        """End the process if it still runs."""
        if not self.child_has_ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_embedded(self) -> None:
        """`service()` leaves the signals of a program alone."""
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        made = service(hello, listen=[f"tcp:0:interface={LOOPBACK}"], patch="none")
        made.startService()
        self.addCleanup(made.stopService)
        after = [signal.getsignal(number) for number in signal.valid_signals()]
        self.assertEqual(after, before)
