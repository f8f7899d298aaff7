"""Two servers with the same application, one compiled and one in pure Python.

Each receives the same bytes in the same pieces. A request on a second connection to the
same server, answered after each piece, shows that the server has handled it: a server
runs all its requests in one thread. It knows bytes and logs; it must never know what
the requests mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.folders import short_folder
from tests.integration.processes import ANSWER_SECONDS, LOOPBACK, start

if TYPE_CHECKING:
    from collections.abc import Sequence
    from unittest import TestCase

    from tests.integration.processes import ServerProcess

__all__ = ["APP", "CLOSE", "FREES_MEMORY", "HOST", "Pair", "Seen", "Side", "reset"]

APP: Final = "tests.native.app:app"
#: Field lines of requests.
HOST: Final = b"Host: example.com\r\n"
CLOSE: Final = b"Connection: close\r\n"
#: AddressSanitizer keeps freed memory, to detect its use.
FREES_MEMORY: Final = "ASAN_OPTIONS" not in os.environ

_IDLE: Final = b"GET /idle HTTP/1.1\r\nHost: x\r\n\r\n"
_DATE: Final = re.compile(rb"\r\nDate: [^\r]*")
#: Rounds after each piece. A round takes at least one turn of the reactor. A connection
#: is accepted in one turn and read in the next, each perhaps after the round's request.
_FEWEST_ROUNDS: Final = 4
#: Rounds after each piece, if a request waits for the next one.
_READ_ROUNDS: Final = 20
#: Consecutive rounds without a request in flight and without data.
_QUIET_ROUNDS: Final = 2
#: Consecutive rounds without data after which a request waits for its client: longer
#: than the application sleeps.
_STUCK_ROUNDS: Final = 200
_MOST_ROUNDS: Final = 100_000
_PAIR: Final = "compiled", "pure"
#: Fields of the access log that differ between two servers or two runs.
_VARYING: Final = ("time", "request_id", "remote_port")
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")
_RAISED: Final = re.compile(r"^\t?([\w.]*(?:Error|Exception|Disconnected)\b.*)$", re.M)


@dataclass(frozen=True)
class Seen:
    """Everything that a client sees of a connection.

    Attributes:
        data: all bytes received, without the values of Date.
        end: "open", "waiting" (with a request in flight), "closed" or "reset".
    """

    data: bytes
    end: str


class Side:
    """One of the two servers.

    Args:
        test: its cleanup ends the process.
        mode: "compiled" or "pure".
        options: of the server.
        logged: write an access log, which takes each request off one of the lanes.
    """

    _access: Path | None = None

    def __init__(
        self,
        test: TestCase,
        mode: str,
        options: Sequence[str] = (),
        *,
        logged: bool = False,
    ) -> None:
        self.mode = mode
        if logged:
            options = (*options, *self._access_log(test))
        pure = "1" if mode == "pure" else ""
        self.server: ServerProcess = start(
            test,
            "greenwsgi",
            f"--app={APP}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            "--keep-alive=600",
            # A path that moves to threads would depend on time.
            "--threads-for=none",
            *options,
            environ={"TXGREENWSGI_PURE": pure},
        )
        self.server.wait_logged(" serves ")
        self._beside = self.connect()
        test.addCleanup(self._beside.close)

    def _access_log(self, test: TestCase) -> tuple[str, str]:
        self._access = short_folder(test) / "access"
        return f"--access-log={self._access}", "--access-log-format=json"

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
            end = ""
            for piece in pieces:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(piece)
                self._let_read()
                # The rest would race with the end of the connection.
                end = _read(connection, received)
                if end:
                    break
            end = end or self._settle(connection, received)
            if leave and end in ("open", "waiting"):
                connection.shutdown(socket.SHUT_WR)
                end = self._settle(connection, received)
        self._settle_after_close()
        return Seen(_DATE.sub(b"\r\nDate: x", bytes(received)), end)

    def _let_read(self) -> None:
        """Wait until the server has read what it can, and served it."""
        for number in range(1, _READ_ROUNDS + 1):
            if self.in_flight() == 0 and number >= _FEWEST_ROUNDS:
                return

    def _settle(self, connection: socket.socket, received: bytearray) -> str:
        """Read until the server has nothing left to do or closes the connection."""
        quiet = stuck = 0
        while quiet < _QUIET_ROUNDS and stuck < _STUCK_ROUNDS:
            quiet = quiet + 1 if self.in_flight() == 0 else 0
            stuck += 1
            before = len(received)
            end = _read(connection, received)
            if end:
                return end
            if len(received) > before:
                quiet = stuck = 0
        return "open" if quiet else "waiting"

    def _settle_after_close(self) -> None:
        for _ in range(_MOST_ROUNDS):
            if self.in_flight() == 0:
                return
        raise AssertionError(
            f"a request outlives its client in the {self.mode} server:\n"
            f"{self.server.log()[-5000:]}"
        )

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
        found: list[dict[str, Any]] = []
        if self._access is None:
            return found
        for line in Path(self._access).read_text("utf-8").splitlines():
            record = json.loads(line)
            if record["target"] not in ("/idle", "/lanes"):
                # Times are numbers with a fraction.
                fixed = {
                    key: value
                    for key, value in record.items()
                    if key not in _VARYING and not isinstance(value, float)
                }
                found.append(fixed)
        return found

    def raised(self) -> list[str]:
        """Return the last lines of all tracebacks in the log."""
        return _RAISED.findall(_ADDRESS.sub("0x", self.server.log()))


def _read(connection: socket.socket, received: bytearray) -> str:
    """Read what is there; return "closed", "reset" or, if it is open, ""."""
    connection.setblocking(False)
    try:
        while data := connection.recv(1_000_000):
            received += data
    except BlockingIOError:
        connection.settimeout(ANSWER_SECONDS)
        return ""
    except ConnectionResetError:
        return "reset"
    return "closed"


def reset(connection: socket.socket) -> None:
    """Close with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _same(first: bytes, second: bytes) -> int:
    """Return the length of the common beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    differing = (at for at, (one, other) in pairs if one != other)
    return next(differing, min(len(first), len(second)))


class Pair:
    """Both servers.

    Args:
        test: its cleanup ends the processes.
        options: of both servers.
        logged: as for `Side`.
    """

    def __init__(
        self, test: TestCase, options: Sequence[str] = (), *, logged: bool = False
    ) -> None:
        self._test = test
        self.compiled, self.pure = (
            Side(test, mode, options, logged=logged) for mode in _PAIR
        )
        self.sides = (self.compiled, self.pure)

    def check(self, pieces: Sequence[bytes], *, leave: bool = False) -> Seen:
        """Send the same pieces to both, compare, and return what both answered.

        Raises:
            AssertionError: they answered differently.
        """
        compiled, pure = (side.exchange(pieces, leave=leave) for side in self.sides)
        if compiled != pure:
            same = _same(compiled.data, pure.data)
            found = [
                (each.data[max(0, same - 200) : same + 200], each.end)
                for each in (compiled, pure)
            ]
            raise AssertionError(
                f"{list(pieces)!r}\ncompiled: {found[0]}\n    pure: {found[1]}\n"
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
