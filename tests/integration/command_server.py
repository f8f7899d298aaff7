"""Servers that `txgreenwsgi` runs, with workers or without.

The servers are other processes. Their readiness is that of their health path.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    START_SECONDS,
    STOP_SECONDS,
    Answer,
    Server,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from unittest import TestCase

__all__ = ["COMMAND", "CommandServer", "wait_for"]

#: The command, run by the interpreter of the tests.
COMMAND = (sys.executable, "-m", "txgreenwsgi")


def wait_for(
    condition: Callable[[], bool], what: str, seconds: float = START_SECONDS
) -> None:
    """Wait until a condition is true.

    Raises:
        AssertionError: timeout; the message says what was awaited.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not in {seconds:g} s: {what}")
        time.sleep(0.05)


class CommandServer(Server):
    """A server in the foreground; the test's cleanup ends it.

    Args:
        test: its cleanup ends the process.
        words: the arguments of `txgreenwsgi`.
        folder: working directory, with the application.
        address: a TCP port on the loopback interface, or the path of a UNIX socket.
        environ: added to the environment.
        wrapper: a command that runs another one, with its arguments.
    """

    def __init__(
        self,
        test: TestCase,
        words: Sequence[str],
        folder: Path,
        address: int | Path,
        *,
        environ: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.address = address
        self._log = tempfile.NamedTemporaryFile(prefix="deployed-", suffix=".log")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*wrapper, *COMMAND, *words],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(folder), str(CHECKOUT))),
                "PYTHONUNBUFFERED": "1",
                **(environ or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        test.addCleanup(self._kill)

    @property
    def port(self) -> int:
        """The TCP port."""
        if isinstance(self.address, Path):
            raise AssertionError(f"{self.address} is not a TCP port")
        return self.address

    def log(self) -> str:
        """Return everything that the process has written so far."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def wait_logged(self, text: str) -> None:
        """Wait until a text is in the log.

        Raises:
            AssertionError: the server ended, or timeout; the message has its log.
        """
        until = time.monotonic() + START_SECONDS
        while text not in self.log():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{text!r} is not logged:\n{self.log()}")
            time.sleep(0.05)

    def ask(self, path: str, tls_context: ssl.SSLContext | None = None) -> Answer:
        """Send one request on a new connection, over TLS if there is a context.

        Raises:
            OSError: the server refuses or closes the connection.
        """
        if isinstance(self.address, Path):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(ANSWER_SECONDS)
            with sock:
                sock.connect(str(self.address))
                return self._asked(sock, path)
        with socket.create_connection((LOOPBACK, self.address), ANSWER_SECONDS) as sock:
            if tls_context is None:
                return self._asked(sock, path)
            with tls_context.wrap_socket(sock) as secured:
                return self._asked(secured, path)

    def _asked(self, sock: socket.socket, path: str) -> Answer:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = sock
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def wait_ready(self, tls_context: ssl.SSLContext | None = None) -> None:
        """Wait until the server says that it is ready.

        Raises:
            AssertionError: it ended, or timeout; the message has its log.
        """
        until = time.monotonic() + START_SECONDS
        answer: object = None
        while True:
            try:
                answer = self.ask("/-/ready", tls_context)
                if answer.status == 200:
                    return
            except (OSError, http.client.HTTPException) as error:
                answer = error
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"not ready, {answer!r}:\n{self.log()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server in an orderly way.

        Raises:
            AssertionError: it ends otherwise; the message has its log.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not stop:\n{self.log()}") from None
        if status:
            raise AssertionError(f"it ended with status {status}:\n{self.log()}")

    def _kill(self) -> None:
        if self.process.poll() is None:
            # With workers, SIGKILL would leave them to find out.
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._log.close()
