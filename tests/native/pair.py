"""Two servers with the same application, one compiled and one in pure Python.

Each receives the same bytes in the same pieces. A request on a second connection to the
same server, answered after each piece, shows that the server has handled it: a server
runs all its requests in one thread. It knows bytes and logs; it must never know what
the requests mean.
"""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.folders import short_folder
from tests.integration.processes import ANSWER_SECONDS, LOOPBACK, start

if TYPE_CHECKING:
    from collections.abc import Sequence
    from unittest import TestCase

    from tests.integration.processes import ServerProcess

__all__ = ["APP", "Pair", "Seen", "Side"]

APP: Final = "tests.native.app:app"

_IDLE: Final = b"GET /idle HTTP/1.1\r\nHost: x\r\n\r\n"
_DATE: Final = re.compile(rb"\r\nDate: [^\r]*")
#: Consecutive rounds without a request in flight and without data.
_QUIET_ROUNDS: Final = 2
_MOST_ROUNDS: Final = 10_000
_PAIR: Final = "compiled", "pure"
#: Fields of the access log that differ between two servers or two runs.
_VARYING: Final = ("time", "request_id", "remote_port", "duration", "blocked")
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")
_RAISED: Final = re.compile(r"^\t?([\w.]*(?:Error|Exception|Disconnected)\b.*)$", re.M)


@dataclass(frozen=True)
class Seen:
    """Everything that a client sees of a connection.

    Attributes:
        data: all bytes received, without the values of Date.
        end: "open", "closed" or "reset".
    """

    data: bytes
    end: str


class Side:
    """One of the two servers.

    Args:
        test: its cleanup ends the process.
        mode: "compiled" or "pure".
        options: of the server.
    """

    def __init__(self, test: TestCase, mode: str, options: Sequence[str]) -> None:
        self.mode = mode
        self._access = short_folder(test) / "access"
        pure = "1" if mode == "pure" else ""
        self.server: ServerProcess = start(
            test,
            "greenwsgi",
            f"--app={APP}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            "--keep-alive=600",
            # A path that moves to threads would depend on time.
            "--threads-for=none",
            f"--access-log={self._access}",
            "--access-log-format=json",
            *options,
            environ={"TXGREENWSGI_PURE": pure},
        )
        self.server.wait_logged(" serves ")
        self._beside = self.connect()
        test.addCleanup(self._beside.close)

    def connect(self) -> socket.socket:
        """Open a connection."""
        address = (LOOPBACK, self.server.port)
        connection = socket.create_connection(address, ANSWER_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def in_flight(self) -> int:
        """Return the number of requests in flight, in a turn of the server's own."""
        self._beside.sendall(_IDLE)
        received = b""
        while not re.search(rb"\r\n\r\n\d+\Z", received):
            data = self._beside.recv(4096)
            if not data:
                raise AssertionError(
                    f"the {self.mode} server closed the connection after "
                    f"{received!r}:\n{self.server.log()}"
                )
            received += data
        return int(received.rpartition(b"\r\n")[2])

    def exchange(self, pieces: Sequence[bytes], *, leave: bool = False) -> Seen:
        """Send these pieces, and return what the server answers until it is idle.

        Args:
            pieces: to send one by one.
            leave: close the sending side afterwards, and wait again.
        """
        with self.connect() as connection:
            received = bytearray()
            end = "open"
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    break  # the rest of `received` has the reason
                self.in_flight()
            end = self._settle(connection, received)
            if leave and end == "open":
                connection.shutdown(socket.SHUT_WR)
                end = self._settle(connection, received)
        self._settle_after_close()
        return Seen(_DATE.sub(b"\r\nDate: x", bytes(received)), end)

    def _settle(self, connection: socket.socket, received: bytearray) -> str:
        """Read until the server has nothing left to do or closes the connection."""
        connection.setblocking(False)
        quiet = 0
        for _ in range(_MOST_ROUNDS):
            quiet = quiet + 1 if self.in_flight() == 0 else 0
            try:
                while data := connection.recv(1_000_000):
                    received += data
                    quiet = 0
            except BlockingIOError:
                if quiet < _QUIET_ROUNDS:
                    continue
                connection.settimeout(ANSWER_SECONDS)
                return "open"
            except ConnectionResetError:
                return "reset"
            return "closed"
        raise AssertionError(
            f"the {self.mode} server does not become idle:\n{self.server.log()}"
        )

    def _settle_after_close(self) -> None:
        for _ in range(_MOST_ROUNDS):
            if self.in_flight() == 0:
                return

    def fetch_json(self, path: str) -> Any:
        """Return the JSON that the application answers for a path."""
        return json.loads(self.server.fetch(path).body)

    def stop(self) -> None:
        """Stop the server in an orderly way."""
        self._beside.close()
        self.server.ask_to_stop()
        self.server.wait_ended()

    def records(self) -> list[dict[str, Any]]:
        """Return the access log of a stopped server, without what varies."""
        found = []
        for line in Path(self._access).read_text("utf-8").splitlines():
            record = json.loads(line)
            if record["target"] != "/idle":
                found.append(
                    {key: record[key] for key in record if key not in _VARYING}
                )
        return found

    def raised(self) -> list[str]:
        """Return the last lines of all tracebacks in the log."""
        return _RAISED.findall(_ADDRESS.sub("0x", self.server.log()))


class Pair:
    """Both servers.

    Args:
        test: its cleanup ends the processes.
        options: of both servers.
    """

    def __init__(self, test: TestCase, *options: str) -> None:
        self._test = test
        self.compiled, self.pure = (Side(test, mode, options) for mode in _PAIR)
        self.sides = (self.compiled, self.pure)

    def check(self, pieces: Sequence[bytes], *, leave: bool = False) -> Seen:
        """Send the same pieces to both, compare, and return what both answered.

        Raises:
            AssertionError: they answered differently.
        """
        compiled, pure = (side.exchange(pieces, leave=leave) for side in self.sides)
        if compiled != pure:
            raise AssertionError(
                f"{list(pieces)!r}\ncompiled: {compiled}\n    pure: {pure}\n"
                f"{self.compiled.server.log()[-2000:]}\n"
                f"{self.pure.server.log()[-2000:]}"
            )
        return pure

    def finish(self) -> None:
        """Stop both servers, and compare their logs.

        Raises:
            AssertionError: the access logs, or the logged errors, differ.
        """
        for side in self.sides:
            side.stop()
        self._test.assertEqual(self.compiled.records(), self.pure.records())
        self._test.assertEqual(self.compiled.raised(), self.pure.raised())
