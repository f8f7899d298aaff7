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
from pathlib import Path
from typing import TYPE_CHECKING

from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    STOP_SECONDS,
    Answer,
    LoggedProcess,
    connect_unix,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence
    from unittest import TestCase

__all__ = ["COMMAND", "CommandServer"]

#: The command, run by the interpreter of the tests.
COMMAND = (sys.executable, "-m", "txgreenwsgi")


class CommandServer(LoggedProcess):
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
        path = os.pathsep.join((str(folder), str(CHECKOUT)))
        super().__init__(
            [*wrapper, *COMMAND, *words],
            folder,
            environ={"PYTHONPATH": path, **(environ or {})},
        )
        # With workers, SIGKILL would leave them to find out.
        test.addCleanup(self.end)

    @property
    def port(self) -> int:
        """The TCP port."""
        if isinstance(self.address, Path):
            raise AssertionError(f"{self.address} is not a TCP port")
        return self.address

    def ask(self, path: str, tls_context: ssl.SSLContext | None = None) -> Answer:
        """Send one request on a new connection, over TLS if there is a context.

        Raises:
            OSError: the server refuses or closes the connection.
        """
        if isinstance(self.address, Path):
            with connect_unix(self.address) as client:
                return self._asked(client.socket, path)
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
        answer: object = None

        def is_ready() -> bool:
            nonlocal answer
            try:
                answer = self.ask("/-/ready", tls_context)
            except (OSError, http.client.HTTPException) as error:
                answer = error
            return isinstance(answer, Answer) and answer.status == 200

        self.wait_for(is_ready, lambda: f"readiness, the last answer is {answer!r}")

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
