"""Database and cache servers for the tests, each started on a free port.

A server keeps its files, sockets and temporary files in a folder of its own, so it
runs beside any other server and beside other runs of these tests. It runs as an
unprivileged user, because database servers refuse to run as root. A test whose server
is not installed is skipped. This module knows the servers' command lines.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

from twisted.trial.unittest import SkipTest

from tests.folders import make_short_folder

from .processes import free_ports, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = [
    "HAProxy",
    "MariaDB",
    "Memcached",
    "Nginx",
    "PostgreSQL",
    "Prometheus",
    "Redis",
    "Service",
    "find_program",
]

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
#: A free port may be taken by another process before the server binds it.
START_ATTEMPTS = 3


def find_program(name: str) -> str:
    """Return the path of a program, or skip the test if it is not installed."""
    found = shutil.which(name)
    if found is None:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        for folder in (*folders, Path("/usr/sbin")):
            if (folder / name).exists():
                return str(folder / name)
        raise SkipTest(f"{name} is not installed")
    return found


class _NotStartedError(Exception):
    """The server process ended or did not become ready; the message is its log."""


class Service:
    """A server process; use as a context manager.

    Attributes:
        port: TCP port on the loopback interface.
    """

    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.port = 0
        self._user = "nobody" if os.getuid() == 0 else None
        self._folder = make_short_folder(
            "green-service-", others=self._user is not None
        )
        if self._user is not None:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        # Servers and their set-up programs read files of their user's, and some
        # name temporary files after their process id, which is not unique if
        # containers share a /tmp.
        self._environ = {
            **os.environ,
            **dict.fromkeys(("TMPDIR", "TMP", "TEMP", "HOME"), self._folder),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, folder: str) -> None:
        """Create the files that the server needs in `folder`."""

    def command(self, folder: str) -> list[str]:
        """Return the server's command line."""
        raise NotImplementedError

    def ready(self, pid: int) -> bool:
        """Return whether process `pid` is the server on the port, and it answers."""
        raise NotImplementedError

    def run(self, *command: str) -> str:
        """Run a command to its end as the server's user and return its output.

        Raises:
            AssertionError: it failed; the message has its output.
        """
        done = subprocess.run(
            command,
            check=False,
            user=self._user,
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        text = done.stdout.decode(errors="replace")
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{text}")
        return text

    def __enter__(self) -> Service:
        try:
            self.command(self._folder)  # raises SkipTest before any work is done
            self.prepare(self._folder)
            for attempt in range(1, START_ATTEMPTS + 1):
                try:
                    self._start()
                    break
                except _NotStartedError as error:
                    self._stop()
                    if attempt == START_ATTEMPTS:
                        raise AssertionError(
                            f"{type(self).__name__} does not start: {error}"
                        ) from None
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        (self.port,) = free_ports(1)
        with Path(self._folder, "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(self._folder),
                user=self._user,
                cwd=self._folder,
                env=self._environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.ready(self._process.pid):
                    return
            except OSError:
                pass  # it does not listen yet
            if self._process.poll() is not None or time.monotonic() > until:
                log_text = Path(self._folder, "log").read_text(errors="replace")
                raise _NotStartedError(log_text)
            time.sleep(0.1)

    def ask(self, question: bytes, end: bytes) -> bytes:
        """Send bytes to the port and return the answer up to `end`.

        Raises:
            OSError: the port refuses or closes the connection, or is silent.
        """
        with socket.create_connection((LOOPBACK, self.port), 5) as sock:
            sock.sendall(question)
            answer = b""
            while end not in answer:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionResetError(f"no {end!r} in {answer!r}")
                answer += data
        return answer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class Redis(Service):
    """redis-server."""

    def command(self, folder: str) -> list[str]:
        """Return a command line without persistence."""
        return [
            find_program("redis-server"),
            *("--port", str(self.port), "--bind", LOOPBACK),
            *("--save", "", "--appendonly", "no", "--maxclients", "1000"),
        ]

    def ready(self, pid: int) -> bool:
        """Compare the process id that the server on the port reports."""
        answer = self.ask(b"INFO server\r\n", b"\r\nuptime_in_seconds:")
        return b"\r\nprocess_id:%d\r\n" % pid in answer


class Memcached(Service):
    """memcached."""

    def command(self, folder: str) -> list[str]:
        """Return a command line with a cache of 16 MiB."""
        return [
            find_program("memcached"),
            *("-p", str(self.port), "-l", LOOPBACK, "-m", "16", "-U", "0"),
        ]

    def ready(self, pid: int) -> bool:
        """Compare the process id that the server on the port reports."""
        return b"STAT pid %d\r\n" % pid in self.ask(b"stats\r\n", b"END\r\n")


class MariaDB(Service):
    """mariadbd without passwords; the user is root."""

    def prepare(self, folder: str) -> None:
        """Create an empty database."""
        self.run(
            find_program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={folder}/data",
            f"--tmpdir={folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self, folder: str) -> list[str]:
        """Return a command line with a TCP port and a private socket."""
        return [
            find_program("mariadbd"),
            "--no-defaults",
            f"--datadir={folder}/data",
            f"--tmpdir={folder}",
            f"--socket={folder}/socket",
            f"--pid-file={folder}/pid",
            f"--port={self.port}",
            f"--bind-address={LOOPBACK}",
            "--max-connections=400",
            "--thread-stack=256K",
            "--skip-name-resolve",
        ]

    def ready(self, pid: int) -> bool:
        """Wait for the private socket: the server binds it after the TCP port."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(f"{self._folder}/socket")
            return bool(sock.recv(1))  # the greeting


class PostgreSQL(Service):
    """postgres without passwords; the user is postgres."""

    stop_signal = signal.SIGINT

    def prepare(self, folder: str) -> None:
        """Create an empty cluster."""
        self.run(
            find_program("initdb"),
            *("-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-N"),
            *("--locale=C", "--encoding=UTF8"),  # LANG may name one not installed
        )

    def command(self, folder: str) -> list[str]:
        """Return a command line with a TCP port and a private socket."""
        return [
            find_program("postgres"),
            *("-D", f"{folder}/data", "-p", str(self.port), "-k", folder),
            *("-c", f"listen_addresses={LOOPBACK}", "-c", "max_connections=250"),
            *("-c", "fsync=off", "-c", "shared_buffers=16MB"),
        ]

    def ready(self, pid: int) -> bool:
        """Ask through the private socket: the server binds it after the TCP port.

        Before it accepts queries, it accepts connections.
        """
        asked = subprocess.run(
            [
                *(find_program("pg_isready"), "-q", "-h", self._folder),
                *("-p", str(self.port)),
            ],
            check=False,
            user=self._user,
            env=self._environ,
            timeout=START_SECONDS,
        )
        return asked.returncode == 0


class HAProxy(Service):
    """haproxy, in front of servers on the loopback interface.

    Connections to the servers are kept alive and shared. A request is never sent twice;
    a connection that a server refuses is made to another one.

    Args:
        ports: TCP ports of the servers.
        retries: number of further attempts to connect.
    """

    def __init__(self, ports: Sequence[int], retries: int = 3) -> None:
        super().__init__()
        self._ports = ports
        self._retries = retries

    def _configuration(self, folder: str) -> str:
        servers = "\n".join(
            f"    server web{number} {LOOPBACK}:{port} check inter 200ms rise 1 fall 1"
            for number, port in enumerate(self._ports)
        )
        return f"""
global
    stats socket {folder}/stats
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries {self._retries}
    option redispatch 1
    http-reuse always
frontend web
    bind {LOOPBACK}:{self.port}
    default_backend servers
backend servers
    balance leastconn
{servers}
"""

    def command(self, folder: str) -> list[str]:
        """Write the configuration; return a command line that uses it."""
        path = Path(folder, "haproxy.cfg")
        path.write_text(self._configuration(folder))
        return [find_program("haproxy"), "-db", "-f", str(path)]

    def _stats(self) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(f"{self._folder}/stats")
            sock.sendall(b"show info; show stat\n")
            parts = []
            while part := sock.recv(65536):
                parts.append(part)
            return b"".join(parts).decode()

    def ready(self, pid: int) -> bool:
        """Compare the process id that the server on the private socket reports."""
        return f"\nPid: {pid}\n" in self._stats()

    def wait_up(self, count: int) -> None:
        """Wait until `count` servers, and no others, pass their checks.

        Raises:
            AssertionError: they do not; the message has the state.
        """
        wait_for(
            lambda: self._stats().count(",UP,") == count + 1,  # and the backend
            lambda: f"{count} servers\n{self._stats()}",
            START_SECONDS,
        )


class Nginx(Service):
    """nginx; a subclass gives its configuration."""

    def configuration(self, folder: str) -> str:
        """Return the part of the configuration file that has the port."""
        raise NotImplementedError

    def command(self, folder: str) -> list[str]:
        """Write the configuration; return a command line that uses it."""
        Path(folder, "nginx.conf").write_text(
            f"daemon off;\npid {folder}/pid;\nerror_log stderr;\n"
            f"{self.configuration(folder)}events {{}}\n"
        )
        return [
            *(find_program("nginx"), "-p", folder, "-c", f"{folder}/nginx.conf"),
            *("-e", "stderr"),
        ]

    def ready(self, pid: int) -> bool:
        """Compare the process id in its file, which nginx writes when it listens."""
        path = Path(self._folder, "pid")
        return path.exists() and path.read_text().strip() == str(pid)


class Prometheus(Service):
    """A Prometheus that scrapes one target five times a second.

    Args:
        target: the port of the target on the loopback interface.
    """

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target

    def prepare(self, folder: str) -> None:
        """Write the configuration."""
        Path(folder, "prometheus.yml").write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            "scrape_configs:\n"
            "- job_name: shop\n"
            f"  static_configs: [{{targets: ['{LOOPBACK}:{self._target}']}}]\n"
        )

    def command(self, folder: str) -> list[str]:
        """Return the command line."""
        return [
            find_program("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--log.level=warn",
        ]

    def _get(self, path: str, **arguments: str) -> Any:
        url = f"http://{LOOPBACK}:{self.port}{path}?{urlencode(arguments)}"
        with urlopen(url, timeout=30) as response:
            return json.load(response)

    def ready(self, pid: int) -> bool:
        """Return whether it answers queries."""
        try:
            found = self._get("/api/v1/status/flags")
        except (OSError, ValueError):
            return False
        # Not another process on the port.
        path: str = found["data"]["storage.tsdb.path"]
        return path.startswith(self._folder)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series of an expression."""
        found = self._get("/api/v1/query", query=expression)
        return [
            (each["metric"], float(each["value"][1]))
            for each in found["data"]["result"]
        ]

    def value(self, expression: str) -> float:
        """Return the value of an expression with one series, or 0 without one."""
        found = self.query(expression)
        return found[0][1] if found else 0.0
