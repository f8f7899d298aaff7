"""Clients that send requests while their servers restart, reload or die.

`python -m tests.integration.restart_clients [options] PORT...` runs clients that keep
their connections alive and clients that do not, until its standard input ends. It
prints a line when each of them has sent a request, and an `Outcome` as JSON at the end.
A request without a complete response is a failure, and nothing is sent twice. A
connection that one port refuses is made to another, as a load balancer does; with one
port it is a failure.

Tests start it by `RestartClients`. The server is `restart_app`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from unittest import TestCase

__all__ = ["Failure", "Outcome", "RestartClients", "percentile"]

_LOOPBACK = "127.0.0.1"
_PATHS = ("/", "/", "/wait", "/stream")

#: Timeout of an answer in seconds.
_SECONDS = 30.0

#: Mean pause between two requests of a client, in seconds.
_PAUSE_SECONDS = 0.01

#: Rarely, a client pauses for so many seconds. Less than the default of --drain-idle.
_LONG_PAUSE_SECONDS = 1.0
_LONG_PAUSES = 0.005

_BEGUN = "each client has sent a request\n"

#: Timeout of the clients after the end of the test, in seconds.
_END_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request without a complete and correct response.

    Attributes:
        path: of the request.
        error: the exception.
        seconds: time since the request was begun.
        worker: process id in the previous response on this connection; 0 on a new one.
    """

    path: str
    error: str
    seconds: float
    worker: int


@dataclass(kw_only=True)
class Outcome:
    """The results of all clients.

    Attributes:
        answered: number of complete responses.
        failures: the other requests.
        workers: number of responses by the process id in them.
        latencies: seconds of each request on a connection in use, by process id, in
            ascending order.
    """

    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    workers: dict[int, int] = field(default_factory=dict)
    latencies: dict[int, list[float]] = field(default_factory=dict)

    def add(self, worker: int, latency: float | None) -> None:
        """Count a complete response of a worker."""
        self.answered += 1
        self.workers[worker] = self.workers.get(worker, 0) + 1
        if latency is not None:
            self.latencies.setdefault(worker, []).append(latency)

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Return the outcome in the JSON that another process has printed."""
        values: dict[str, Any] = json.loads(text)
        return cls(
            answered=values["answered"],
            failures=[Failure(**each) for each in values["failures"]],
            workers={int(pid): count for pid, count in values["workers"].items()},
            latencies={
                int(pid): sorted(each) for pid, each in values["latencies"].items()
            },
        )


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the value below which a share (0 to 1) of the values lies."""
    return ascending[min(int(share * len(ascending)), len(ascending) - 1)]


class RestartClients:
    """Clients in a process of their own, which the test's cleanup ends.

    From the start, each of them has sent a request.

    Args:
        test: its cleanup ends the process.
        ports: TCP ports of equivalent servers.
        kept: number of clients with connections that are kept alive.
        closing: number of clients that connect for each request.
        tls: whether the servers speak TLS.
        method: `GET`, or `POST`, which no proxy repeats.
        paths: the requests are distributed evenly over these.
        pause: mean pause between two requests of a client, in seconds.
    """

    def __init__(
        self,
        test: TestCase,
        ports: Sequence[int],
        *,
        kept: int = 20,
        closing: int = 5,
        tls: bool = False,
        method: str = "GET",
        paths: Sequence[str] = _PATHS,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        words = [f"--kept={kept}", f"--closing={closing}", f"--method={method}"]
        words += ["--tls"] if tls else []
        words += [f"--path={path}" for path in paths]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.restart_clients"),
                *(*words, f"--pause={pause}", *map(str, ports)),
            ],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        test.addCleanup(self._end)
        assert self._process.stdout is not None
        begun = self._process.stdout.readline()
        if begun != _BEGUN:
            raise AssertionError(f"the clients have printed {begun!r}")

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def finish(self, least: int = 0) -> Outcome:
        """Let the clients end their requests in progress, and return the results.

        Args:
            least: they go on until so many requests have ended.
        """
        output, _ = self._process.communicate(f"{least}\n", timeout=_END_SECONDS)
        if self._process.returncode:
            raise AssertionError(f"the clients ended with {self._process.returncode}")
        return Outcome.from_json(output)


class _Clients:
    def __init__(self, options: argparse.Namespace) -> None:
        self.outcome = Outcome()
        self.stopping = threading.Event()
        self._options = options
        self._context: ssl.SSLContext | None = None
        if options.tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._lock = threading.Lock()

    def wait_ended(self, least: int) -> None:
        """Wait until a number of requests has ended."""
        while self.outcome.answered + len(self.outcome.failures) < least:
            time.sleep(0.02)

    def run(self, keeps_alive: bool, first_ended: threading.Event) -> None:
        """Send one request after the other; set an event after the first."""
        chance = random.Random()
        connection: http.client.HTTPConnection | None = None
        worker = 0
        while not self.stopping.is_set():
            path = chance.choice(self._options.paths)
            begun = time.monotonic()
            try:
                if connection is None:
                    connection = self._connected(chance)
                previous, (worker, closes) = (
                    worker,
                    self._ask(connection, path, keeps_alive),
                )
            except Exception as error:
                failure = Failure(
                    path=path,
                    error=repr(error),
                    seconds=time.monotonic() - begun,
                    worker=worker,
                )
                with self._lock:
                    self.outcome.failures.append(failure)
                closes = True
            else:
                passed = time.monotonic() - begun
                with self._lock:
                    self.outcome.add(worker, passed if previous else None)
            if closes and connection is not None:
                connection.close()
                connection, worker = None, 0
            first_ended.set()
            if chance.random() < _LONG_PAUSES:
                self.stopping.wait(_LONG_PAUSE_SECONDS)
            else:
                time.sleep(chance.expovariate(1 / self._options.pause))
        if connection is not None:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, path: str, keeps_alive: bool
    ) -> tuple[int, bool]:
        """Return the worker of the response, and whether it closes the connection."""
        fields = {} if keeps_alive else {"Connection": "close"}
        method = self._options.method
        connection.request(method, path, b"" if method == "POST" else None, fields)
        response = connection.getresponse()
        body = response.read()
        if (response.status, body) != (200, path.encode()):
            raise AssertionError(f"{response.status} {body!r}")
        return int(response.getheader("X-Worker", "0")), response.will_close

    def _connected(self, chance: random.Random) -> http.client.HTTPConnection:
        ports = self._options.ports
        for port in chance.sample(ports, len(ports)):
            connection: http.client.HTTPConnection
            if self._context is None:
                connection = http.client.HTTPConnection(_LOOPBACK, port, _SECONDS)
            else:
                connection = http.client.HTTPSConnection(
                    _LOOPBACK, port, timeout=_SECONDS, context=self._context
                )
            try:
                connection.connect()
            except ConnectionRefusedError:
                continue
            return connection
        raise AssertionError("every port refuses the connection")


def main() -> None:
    """Run the clients until the end of standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kept", type=int, required=True)
    parser.add_argument("--closing", type=int, required=True)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--method", choices=["GET", "POST"], default="GET")
    parser.add_argument("--path", dest="paths", action="append", required=True)
    parser.add_argument("--pause", type=float, required=True)
    parser.add_argument("ports", type=int, nargs="+")
    options = parser.parse_args()
    clients = _Clients(options)
    begun = [threading.Event() for _ in range(options.kept + options.closing)]
    threads = [
        threading.Thread(target=clients.run, args=(number < options.kept, event))
        for number, event in enumerate(begun)
    ]
    for thread in threads:
        thread.start()
    for event in begun:
        event.wait()
    print(_BEGUN, end="", flush=True)
    clients.wait_ended(int(sys.stdin.read() or 0))
    clients.stopping.set()
    for thread in threads:
        thread.join()
    print(clients.outcome.to_json())


if __name__ == "__main__":
    main()
