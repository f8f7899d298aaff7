"""Start `twistd` as a user would, send it requests, stop it, check its end.

The servers are other processes, so tests may block on plain sockets. It knows the
command line and the log; it must never import the server it starts.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import http.client
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from unittest import TestCase

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
ANSWER_SECONDS = 30.0

# This is what the script `twistd` does, run by the interpreter of the tests. Like
# the script, it removes the current directory from the import path.
TWISTD = (
    sys.executable,
    "-c",
    "import sys; del sys.path[0]; from twisted.scripts.twistd import run; run()",
)


def free_ports(count: int) -> list[int]:
    """Return ports that no process listens on, nor any other process of tests gets.

    They are below the ephemeral range: while a server restarts, a client's connection
    cannot take its port.
    """
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        with contextlib.suppress(OSError):
            address = (LOOPBACK, random.randrange(20_000, 32_000))
            # Until the end of this process.
            fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, address[1])
            sockets.append(socket.create_server(address))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@functools.cache
def _port_locks() -> int:
    """Return the descriptor of a file that has a byte for each port."""
    path = Path(tempfile.gettempdir(), f"green-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def wait_for(
    condition: Callable[[], T | None],
    what: str | Callable[[], str],
    seconds: float = START_SECONDS,
) -> T:
    """Wait until a condition is true, and return its value.

    Args:
        condition: returns something true at the end.
        what: the expected event; a function is called only after a failure.
        seconds: the timeout.

    Raises:
        AssertionError: timeout; the message has `what`.
    """
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not in {seconds:g} s: {_text(what)}")
        time.sleep(0.02)
    return found


def _text(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


@dataclass(frozen=True)
class Answer:
    """A complete response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body, decoded as UTF-8."""
        return self.body.decode("utf-8")


class RawClient:
    """A client socket that sends raw bytes and reads with a timeout."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.received = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all bytes."""
        self.socket.sendall(data)

    def read_until(self, mark: bytes) -> bytes:
        """Read up to and including `mark`; keep what follows for the next call.

        Raises:
            AssertionError: the server closed the connection, or sent nothing in time.
        """
        while mark not in self.received:
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                raise AssertionError(f"{mark!r} is not in {self.received!r}")
            self.received += data
        end = self.received.index(mark) + len(mark)
        found, self.received = self.received[:end], self.received[end:]
        return found

    def read_all(self) -> bytes:
        """Read until the server closes the connection, by FIN or by RST."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                found, self.received = self.received, b""
                return found
            self.received += data


def connect_unix(path: str | Path) -> RawClient:
    """Connect to a UNIX socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(ANSWER_SECONDS)
    sock.connect(str(path))
    return RawClient(sock)


class Server:
    """A server on the loopback interface."""

    @property
    def port(self) -> int:
        """The TCP port that `connect` and `fetch` use."""
        raise NotImplementedError

    def log(self) -> str:
        """Return everything that the server has logged so far."""
        raise NotImplementedError

    def connect(self, port: int | None = None) -> RawClient:
        """Open a TCP connection to the first port, or to another."""
        address = (LOOPBACK, port or self.port)
        return RawClient(socket.create_connection(address, timeout=ANSWER_SECONDS))

    def fetch(
        self,
        path: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        """Send one request on a new connection and read the whole response.

        Args:
            path: the target of the request.
            method: its method.
            body: its body.
            headers: its header fields.
            port: another port than the first.
            context: for a connection over TLS.

        Raises:
            AssertionError: no complete response; the message has the server's log.
        """
        address = (LOOPBACK, port or self.port)
        connection = http.client.HTTPConnection(*address, ANSWER_SECONDS)
        if context is not None:
            connection = http.client.HTTPSConnection(
                *address, timeout=ANSWER_SECONDS, context=context
            )
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise AssertionError(
                f"{method} {path}: {error!r}; the server's log:\n{self.log()}"
            ) from error
        finally:
            connection.close()


class LoggedProcess(Server):
    """A process that writes its output to a file.

    Args:
        command: the program with its arguments.
        folder: the working directory.
        environ: added to the environment of this process.
        pass_fds: descriptors that the process inherits.

    Attributes:
        process: the child process.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path = CHECKOUT,
        *,
        environ: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="server-", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def log(self) -> str:
        """Return everything that the process has written so far."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def wait_for(
        self,
        condition: Callable[[], T | None],
        what: str | Callable[[], str],
        seconds: float = START_SECONDS,
        *,
        may_end: bool = False,
    ) -> T:
        """Wait until a condition is true, and return its value.

        Args:
            condition: returns something true at the end.
            what: as for the function `wait_for`.
            seconds: the timeout.
            may_end: wait on after the end of the process.

        Raises:
            AssertionError: timeout, or the process ended; the message has its log.
        """

        def reached() -> T | None:
            found = condition()
            if not found and not may_end and self.process.poll() is not None:
                raise AssertionError(f"ended without {_text(what)}:\n{self.log()}")
            return found

        return wait_for(reached, lambda: f"{_text(what)}:\n{self.log()}", seconds)

    def wait_logged(self, pattern: str, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until the log matches.

        Raises:
            AssertionError: timeout, or the process ended; the message has its log.
        """
        self.wait_for(lambda: re.search(pattern, self.log()), repr(pattern), seconds)

    def kill(self) -> None:
        """Kill the process if it still runs, and delete its log."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    def end(self) -> None:
        """Terminate the process, which ends its workers; kill it if it stays."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.kill()


class ServerProcess(LoggedProcess):
    """A `twistd -n` process.

    Args:
        arguments: of `twistd -n --pidfile=`.
        environ: added to the environment of this process.
        wrapper: the command that runs twistd, with its arguments.
        pass_fds: descriptors that the process inherits.

    Attributes:
        ports: its TCP ports, in the order of its endpoints.
    """

    def __init__(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        super().__init__(
            [*wrapper, *TWISTD, "-n", "--pidfile=", *arguments],
            environ=environ,
            pass_fds=pass_fds,
        )
        self._arguments = arguments
        self.ports: list[int] = []

    @property
    def port(self) -> int:
        """The first TCP port."""
        return self.ports[0]

    def wait_listening(self, endpoints: int = 1) -> None:
        """Wait until the process listens on a number of endpoints.

        Raises:
            AssertionError: the process ended, or timeout; the message has its log.
        """

        def places() -> list[str]:
            # Twisted logs this when a TCP socket listens, and just before a UNIX socket
            # is bound. A client that connects then is served as soon as the
            # application is loaded.
            found = re.findall(r" starting on (\S+)$", self.log(), re.MULTILINE)
            return [place for place in found if place.isdigit() or _listens(place)]

        self.wait_for(lambda: len(places()) >= endpoints, f"{endpoints} endpoints")
        self.ports = [int(place) for place in places() if place.isdigit()]

    def wait_logged(self, pattern: str, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until a line of the log matches.

        Raises:
            AssertionError: timeout; the message has the log.
        """
        # It may be the line of another process, after the end of this one.
        self.wait_for(
            lambda: re.search(pattern, self.log()), repr(pattern), seconds, may_end=True
        )

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def stop_if_running(self) -> None:
        """Stop the process in an orderly way, and so its other processes."""
        if self.process.poll() is None:
            self.ask_to_stop()
            self.wait_ended()

    def wait_ended(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until the process has shut down in an orderly way.

        The status is 0 for `twistd greenwsgi`. With `-y`, twistd shuts down and then
        ends itself by the signal that stopped it.

        Raises:
            AssertionError: it still runs, or ended otherwise; the message has its log.
        """
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"twistd does not stop:\n{self.log()}") from None
        expected = (0, -signal.SIGTERM) if "-y" in self._arguments else (0,)
        if status not in expected or "Server Shut Down." not in self.log():
            raise AssertionError(f"twistd ended with status {status}:\n{self.log()}")

    def resident_kib(self) -> int:
        """Return the resident memory of the process in KiB, as Linux reports it."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        if found is None:
            raise AssertionError(f"no VmRSS in {status}")
        return int(found[1])


def _listens(place: str) -> bool:
    """Return whether a UNIX socket listens.

    Args:
        place: its path, as Twisted's log has it; other places count as listening.
    """
    path = re.fullmatch(r"b?'(.+)'", place)
    if path is None or not os.path.exists("/proc/net/unix"):
        return True
    # The flag __SO_ACCEPTCON of the socket (proc(5)).
    line = rf"^\S+ \S+ \S+ 00010000 .* {re.escape(path[1])}$"
    sockets = Path("/proc/net/unix").read_text(errors="surrogateescape")
    return re.search(line, sockets, re.MULTILINE) is not None


def start(
    test: TestCase,
    *arguments: str,
    endpoints: int = 1,
    environ: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> ServerProcess:
    """Start a server; the test's cleanup ends it.

    Args:
        test: its cleanup ends the process.
        arguments: of `twistd -n`: a plugin's name and its options, or `-y` a file.
        endpoints: number of endpoints to wait for.
        environ: added to the environment.
        wrapper: the command that runs twistd, with its arguments.
        pass_fds: descriptors that the process inherits.
    """
    server = ServerProcess(
        *arguments, environ=environ, wrapper=wrapper, pass_fds=pass_fds
    )
    test.addCleanup(server.kill)
    server.wait_listening(endpoints)
    return server


def start_example(test: TestCase, name: str, *endpoints: str) -> ServerProcess:
    """Start an example on free ports, for this test only.

    Args:
        test: its cleanup ends the process.
        name: of the file in `examples`.
        endpoints: the environment variables that override its endpoints.
    """
    return start(
        test,
        "-y",
        f"examples/{name}",
        endpoints=len(endpoints),
        environ=dict.fromkeys(endpoints, f"tcp:0:interface={LOOPBACK}"),
    )


def serve(test: TestCase, app: str, *options: str) -> ServerProcess:
    """Serve an application on a free port, for this test only."""
    listen = f"--listen=tcp:0:interface={LOOPBACK}"
    return start(test, "greenwsgi", f"--app={app}", listen, *options)


_shared: dict[tuple[str, ...], ServerProcess] = {}


def shared(app: str, *options: str) -> ServerProcess:
    """Serve an application for all tests of this process that only send requests.

    trial has no fixture for a class of tests, and a start of Python takes longer than
    most of the tests.
    """
    server = _shared.get((app, *options))
    if server is None:
        server = ServerProcess(
            "greenwsgi",
            f"--app={app}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            *options,
        )
        atexit.register(server.kill)
        server.wait_listening()
        _shared[(app, *options)] = server
    return server
