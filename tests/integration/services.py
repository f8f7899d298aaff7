"""Real servers for real clients: started on free ports, in folders of their own.

Each is skipped where it is not installed. They run as an unprivileged user, for
database servers refuse to run as root. It knows their command lines.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MariaDB", "Memcached", "PostgreSQL", "Redis", "Service"]

START_SECONDS = 40.0


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        for folder in (*folders, Path("/usr/sbin")):
            if (folder / name).exists():
                return str(folder / name)
        raise SkipTest(f"{name} is not installed")
    return found


class Service:
    """A server process; use as a context manager.

    Attributes:
        port: the TCP port on the loopback interface that it listens on.
    """

    def __init__(self) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self._folder = tempfile.mkdtemp(prefix="green-service-")
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, folder: str) -> None:
        """Make what the server needs in `folder`."""

    def command(self, folder: str) -> list[str]:
        """The server's command line."""
        raise NotImplementedError

    def run(self, *command: str) -> None:
        """Run a command to its end, as the server's user."""
        done = subprocess.run(
            command,
            check=False,
            user=self._user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        if done.returncode:
            text = done.stdout.decode(errors="replace")
            raise AssertionError(f"{command} ended with {done.returncode}:\n{text}")

    def __enter__(self) -> Service:
        try:
            command = self.command(self._folder)
            self.prepare(self._folder)
            log = Path(self._folder, "log").open("wb")
            with log:
                self._process = subprocess.Popen(
                    command,
                    user=self._user,
                    cwd=self._folder,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
            self._wait_until_open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def ready(self) -> bool:
        """Whether it answers: it listens by now."""
        return True

    def _wait_until_open(self) -> None:
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                if self.ready():
                    return
                raise ConnectionRefusedError("it listens, and does not answer yet")
            except OSError:  # noqa: PERF203
                if self._process.poll() is not None or time.monotonic() > until:
                    log = Path(self._folder, "log").read_text(errors="replace")
                    raise AssertionError(f"{type(self).__name__}: {log}") from None
                time.sleep(0.1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    stop_signal = signal.SIGTERM


class Redis(Service):
    """redis-server."""

    def command(self, folder: str) -> list[str]:
        """Without persistence."""
        return [
            _program("redis-server"),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--maxclients", "1000"),
        ]


class Memcached(Service):
    """memcached."""

    def command(self, folder: str) -> list[str]:
        """With little memory."""
        return [
            _program("memcached"),
            *("-p", str(self.port), "-l", "127.0.0.1", "-m", "16", "-U", "0"),
        ]


class MariaDB(Service):
    """mariadbd, without passwords: the user is root."""

    def prepare(self, folder: str) -> None:
        """Make an empty database."""
        self.run(
            _program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self, folder: str) -> list[str]:
        """On TCP and a socket of its own."""
        return [
            _program("mariadbd"),
            "--no-defaults",
            f"--datadir={folder}/data",
            f"--socket={folder}/socket",
            f"--pid-file={folder}/pid",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--max-connections=400",
            "--thread-stack=256K",
            "--skip-name-resolve",
        ]


class PostgreSQL(Service):
    """postgres, without passwords: the user is postgres."""

    stop_signal = signal.SIGINT

    def prepare(self, folder: str) -> None:
        """Make an empty cluster."""
        self.run(
            _program("initdb"),
            *("-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-N"),
        )

    def ready(self) -> bool:
        """It listens before it lets anybody in."""
        asked = subprocess.run(
            [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
            check=False,
            timeout=START_SECONDS,
        )
        return asked.returncode == 0

    def command(self, folder: str) -> list[str]:
        """On TCP and a socket of its own."""
        return [
            _program("postgres"),
            *("-D", f"{folder}/data", "-p", str(self.port), "-k", folder),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=250"),
            *("-c", "fsync=off", "-c", "shared_buffers=16MB"),
        ]
