"""Start gunicorn with our worker class, and read its log and its processes.

It knows the command line and the log of gunicorn; it must never import the server.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import ANSWER_SECONDS, CHECKOUT, LOOPBACK, START_SECONDS, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from unittest import TestCase

__all__ = ["GunicornProcess", "start_gunicorn"]

WORKER = "txgreenwsgi.gunicorn.GreenWorker"


class GunicornProcess(Server):
    """An arbiter with its workers.

    Args:
        port: a TCP port.
        arguments: options, and the application.
        environ: added to the environment of this process.
        prefix: arguments of Python in front of the command.

    Attributes:
        process: the arbiter.
    """

    def __init__(
        self,
        port: int,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self._port = port
        self._log = tempfile.NamedTemporaryFile(prefix="gunicorn-", suffix=".log")  # noqa: SIM115
        command = "from gunicorn.app.wsgiapp import run; run(prog='gunicorn')"
        python = (*prefix, sys.executable) if prefix else (sys.executable,)
        bind = f"{LOOPBACK}:{port}"
        self.process = subprocess.Popen(
            [
                *(*python, "-c", command, "-k", WORKER, "-b", bind),
                *arguments,
            ],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._port

    def log(self) -> str:
        """Return everything that the processes have written so far."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def wait_until(
        self, condition: Callable[[], object], seconds: float = START_SECONDS
    ) -> None:
        """Wait until `condition` is true.

        Raises:
            AssertionError: the arbiter ended, or timeout; the message has its log.
        """
        started = time.monotonic()
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"gunicorn ended:\n{self.log()}")
            if time.monotonic() - started > seconds:
                raise AssertionError(f"gunicorn: timeout:\n{self.log()}")
            time.sleep(0.02)

    def wait_logged(self, pattern: str, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until the log matches."""
        self.wait_until(lambda: re.search(pattern, self.log()), seconds)

    def workers(self) -> set[int]:
        """Return the ids of the workers that have started to serve and still run."""
        booted = re.findall(r"\[(\d+)\] \[INFO\] listening on", self.log())
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        running = {int(pid) for pid in children.read_text().split()}
        return {int(pid) for pid in booted} & running

    def wait_workers(self, count: int, without: frozenset[int] = frozenset()) -> None:
        """Wait until exactly `count` workers serve, none of them in `without`."""
        self.wait_until(
            lambda: (
                (found := self.workers()).isdisjoint(without) and len(found) == count
            )
        )

    def send(self, number: int) -> None:
        """Send a signal to the arbiter."""
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop gunicorn and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(ANSWER_SECONDS)

    def kill(self) -> None:
        """End all processes, and delete the log."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()


def start_gunicorn(
    test: TestCase,
    *arguments: str,
    workers: int = 1,
    environ: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    ready: bool = True,
) -> GunicornProcess:
    """Start gunicorn; the test's cleanup ends it.

    Args:
        test: its cleanup ends the processes.
        arguments: options, and the application.
        workers: number of workers.
        environ: added to the environment.
        prefix: arguments of Python in front of the command.
        ready: wait until all workers serve.
    """
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    options = [f"--workers={workers}"]
    server = GunicornProcess(port, *options, *arguments, environ=environ, prefix=prefix)
    test.addCleanup(server.kill)
    if ready:
        server.wait_workers(workers)
    return server
