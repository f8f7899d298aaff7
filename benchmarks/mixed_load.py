"""Clients that request one kind of work, and the latency of a trivial page meanwhile.

    python -m benchmarks.mixed_load PORT PATH CLIENTS SECONDS

runs the clients; `benchmarks.mixed` starts it as a process of its own, so that reading
large responses does not delay the measurement of the trivial page.
"""

from __future__ import annotations

import contextlib
import http.client
import selectors
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from .mixed_app import HELLO
from .process import CannotMeasure

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["request_work", "trivial_page"]

#: Seconds to wait for a response.
TIMEOUT_SECONDS: Final = 60.0
_READ_BYTES: Final = 1 << 18
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def request_work(port: int, path: str, clients: int, seconds: float) -> float:
    """Let some clients request `path` in a closed loop; return requests per second.

    Each client completes its last request, so that a fraction of a long request counts.

    Raises:
        CannotMeasure: a response is missing or not 200.
    """
    rates: list[float] = []
    errors: list[str] = []

    def client() -> None:
        began = time.monotonic()
        count = 0
        try:
            with contextlib.closing(_connection(port)) as connection:
                while time.monotonic() - began < seconds:
                    _get(connection, path)
                    count += 1
        except (OSError, http.client.HTTPException, CannotMeasure) as error:
            errors.append(f"{path}: {error!r}")
        rates.append(count / (time.monotonic() - began))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise CannotMeasure(errors[0])
    return sum(rates)


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)


def _get(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    response = connection.getresponse()
    size = 0
    while block := response.read(_READ_BYTES):
        size += len(block)
    if response.status != 200 or not size:
        raise CannotMeasure(f"{path}: {response.status}, {size} bytes")


class _Probe:
    """One connection that requests the trivial page."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port
        self._began = 0.0
        self._data = b""

    def send(self) -> None:
        """Request the page."""
        self._began = time.monotonic()
        self._data = b""
        self.socket.sendall(_REQUEST)

    def receive(self) -> float | None:
        """Return the latency when the response is complete, None before.

        Raises:
            CannotMeasure: the connection was closed, or the response is not 200.
        """
        data = self.socket.recv(65536)
        self._data += data
        if not data or not self._data.startswith(b"HTTP/1.1 200 "):
            raise CannotMeasure(f"the trivial page is {self._data[:60]!r}")
        if not self._data.endswith(HELLO):
            return None
        return time.monotonic() - self._began


@contextlib.contextmanager
def _probes(port: int) -> Iterator[list[_Probe]]:
    probes = [_Probe(port)]
    try:
        yield probes
    finally:
        for probe in probes:
            probe.socket.close()


def trivial_page(port: int, per_second: float, seconds: float) -> list[float]:
    """Request the trivial page at regular times; return the latencies in seconds.

    A late response does not delay the next request, which has another connection.

    Raises:
        CannotMeasure: a response is missing or not 200.
    """
    latencies: list[float] = []
    began = time.monotonic()
    due = began
    pending = 0
    with selectors.DefaultSelector() as selector, _probes(port) as probes:
        selector.register(probes[0].socket, selectors.EVENT_READ, probes[0])
        idle = probes.copy()
        while True:
            now = time.monotonic()
            sending = due < began + seconds
            if sending and now >= due:
                if not idle:
                    probe = _Probe(port)
                    probes.append(probe)
                    idle.append(probe)
                    selector.register(probe.socket, selectors.EVENT_READ, probe)
                idle.pop().send()
                pending += 1
                due += 1 / per_second
                continue
            if not sending and not pending:
                return latencies
            ready = selector.select(due - now if sending else TIMEOUT_SECONDS)
            if not ready and not sending:
                raise CannotMeasure(f"{pending} responses of the trivial page missing")
            for key, _ in ready:
                probe = key.data
                latency = probe.receive()
                if latency is not None:
                    latencies.append(latency)
                    idle.append(probe)
                    pending -= 1


if __name__ == "__main__":
    try:
        print(
            request_work(
                int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
            )
        )
    except CannotMeasure as failure:
        sys.exit(str(failure))
