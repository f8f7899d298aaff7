"""Start gunicorn with our worker class, and read its log and its processes.

It knows the command line and the log of gunicorn; it must never import the server.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import ANSWER_SECONDS, LOOPBACK, LoggedProcess, free_ports

if TYPE_CHECKING:
    from collections.abc import Mapping
    from unittest import TestCase

__all__ = ["GunicornProcess", "start_gunicorn"]

WORKER = "txgreenwsgi.gunicorn.GreenWorker"


class GunicornProcess(LoggedProcess):
    """An arbiter with its workers.

    Args:
        port: a TCP port.
        arguments: options, and the application.
        environ: added to the environment of this process.
        prefix: arguments of Python in front of the command.
    """

    def __init__(
        self,
        port: int,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self._port = port
        command = "from gunicorn.app.wsgiapp import run; run(prog='gunicorn')"
        python = (*prefix, sys.executable)
        bind = f"{LOOPBACK}:{port}"
        super().__init__(
            [*python, "-c", command, "-k", WORKER, "-b", bind, *arguments],
            environ=environ,
        )

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._port

    def workers(self) -> set[int]:
        """Return the ids of the workers that have started to serve and still run."""
        booted = re.findall(r"\[(\d+)\] \[INFO\] listening on", self.log())
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        running = {int(pid) for pid in children.read_text().split()}
        return {int(pid) for pid in booted} & running

    def wait_workers(self, count: int, without: frozenset[int] = frozenset()) -> None:
        """Wait until exactly `count` workers serve, none of them in `without`."""
        self.wait_for(
            lambda: (
                (found := self.workers()).isdisjoint(without) and len(found) == count
            ),
            f"{count} workers, none of them in {set(without)}",
        )

    def send(self, number: int) -> None:
        """Send a signal to the arbiter."""
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop gunicorn and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(ANSWER_SECONDS)


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
    (port,) = free_ports(1)
    options = [f"--workers={workers}"]
    server = GunicornProcess(port, *options, *arguments, environ=environ, prefix=prefix)
    test.addCleanup(server.end)
    if ready:
        server.wait_workers(workers)
    return server
