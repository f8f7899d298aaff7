"""WebSockets: echoed messages per second, and memory of idle connections.

    python -m benchmarks.websocket [--servers NAME,...] [--connections N] [--idle N]

Each server runs as one process on the first CPU; the client runs on the second. The
client keeps one message of 64 bytes in flight on each of 50 connections. Then it opens
idle connections, sends one message on each, and prints the resident memory that each
has added. `per CPU second` divides the messages by the CPU time of the server, which
does not depend on the load of the machine.

A server whose packages are not installed is left out: wsproto, Flask-Sock, gunicorn,
gevent-websocket, websockets, uvicorn and granian. gunicorn's threads are limited to the
number of connections, so it has no figure for more.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import time
from typing import Final, NamedTuple

from .process import CannotMeasure, Process, free_port, running

__all__ = ["main"]

_APPS: Final = "benchmarks.websocket_app"
_HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGVzdGluZyBpbiBtZW1vcg==\r\n\r\n"
)
_PAYLOAD: Final = b"x" * 64
#: A masked text frame; the mask is zero.
_MESSAGE: Final = bytes((0x81, 0x80 | len(_PAYLOAD))) + bytes(4) + _PAYLOAD
_ECHO: Final = bytes((0x81, len(_PAYLOAD))) + _PAYLOAD
_THREADS: Final = 64
#: Time for a server to finish what the last handshakes have begun.
_SETTLE_SECONDS: Final = 3.0


class _Server(NamedTuple):
    """One server.

    Attributes:
        words: its command line, with PORT for the port.
        most: the largest number of connections; 0 for no limit.
    """

    words: tuple[str, ...]
    most: int = 0


_PYTHON: Final = (sys.executable, "-m")
_GREEN: Final = (*_PYTHON, "txgreenwsgi", "--listen=tcp:PORT:interface=127.0.0.1")
_SERVERS: Final = {
    "txgreenwsgi": _Server((*_GREEN, f"{_APPS}:own")),
    "txgreenwsgi+flask-sock": _Server((*_GREEN, f"{_APPS}:flask_sock()")),
    "gevent-websocket": _Server((*_PYTHON, _APPS, "gevent", "PORT")),
    "gunicorn gthread+flask-sock": _Server(
        (
            *(*_PYTHON, "gunicorn", "-b", "127.0.0.1:PORT", "-k", "gthread"),
            *(f"--threads={_THREADS}", f"{_APPS}:flask_sock()"),
        ),
        _THREADS,
    ),
    "websockets": _Server((*_PYTHON, _APPS, "websockets", "PORT")),
    "uvicorn+websockets": _Server(
        (
            *(*_PYTHON, "uvicorn", "--port=PORT", "--ws=websockets"),
            *("--log-level=warning", "--ws-ping-interval=3600", f"{_APPS}:asgi"),
        )
    ),
    "granian (ASGI)": _Server(
        (
            *(*_PYTHON, "granian", "--port=PORT", "--interface=asgi"),
            *("--no-log", f"{_APPS}:asgi"),
        )
    ),
}


def _connect(port: int) -> socket.socket:
    """Return an open WebSocket."""
    skt = socket.create_connection(("127.0.0.1", port), 30)
    skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    skt.sendall(_HANDSHAKE)
    head = b""
    while b"\r\n\r\n" not in head:
        data = skt.recv(4096)
        if not data:
            break
        head += data
    if b" 101 " not in head:
        raise CannotMeasure(f"no WebSocket: {head[:60]!r}")
    return skt


def _echo_once(skt: socket.socket) -> None:
    skt.sendall(_MESSAGE)
    received = b""
    while len(received) < len(_ECHO):
        data = skt.recv(4096)
        if not data:
            raise CannotMeasure("a WebSocket was closed")
        received += data
    if received != _ECHO:
        raise CannotMeasure(f"wrong echo: {received[:60]!r}")


def _echoes(server: Process, connections: int, seconds: float) -> tuple[float, float]:
    """Return messages per second, and per CPU second of the server."""
    clients = [_connect(server.port) for _ in range(connections)]
    poll = select.epoll()
    by_number = {client.fileno(): client for client in clients}
    for client in clients:
        _echo_once(client)
        poll.register(client.fileno(), select.EPOLLIN)
    for client in clients:
        client.sendall(_MESSAGE)
    count = 0
    cpu = server.cpu_seconds()
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for number, _ in poll.poll(10):
            client = by_number[number]
            if client.recv(4096) != _ECHO:
                raise CannotMeasure("a wrong echo")
            client.sendall(_MESSAGE)
            count += 1
    lasted = time.monotonic() - began
    used = server.cpu_seconds() - cpu
    poll.close()
    for client in clients:
        client.close()
    return count / lasted, count / used if used else 0.0


def _idle_bytes(server: Process, connections: int) -> float:
    """Return the memory of one idle connection, in bytes."""
    server.wait_until_idle()
    before = server.rss_bytes()
    clients = []
    try:
        for _ in range(connections):
            client = _connect(server.port)
            _echo_once(client)
            clients.append(client)
        time.sleep(_SETTLE_SECONDS)
        taken = server.rss_bytes() - before
        for client in clients:
            _echo_once(client)
        return taken / connections
    finally:
        for client in clients:
            client.close()


def main() -> None:
    """Measure the servers, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", default="", help="names, separated by commas")
    parser.add_argument("--connections", type=int, default=50, help="that send")
    parser.add_argument("--seconds", type=float, default=5.0, help="of sending")
    parser.add_argument("--idle", type=int, default=5000, help="idle connections")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[-1]})
    names = options.servers.split(",") if options.servers else list(_SERVERS)
    print("| Server | Messages/s | per CPU second | KiB per idle connection |")
    print("|---|---|---|---|")
    for name in names:
        entry = _SERVERS[name]
        port = free_port()
        words = [word.replace("PORT", str(port)) for word in entry.words]
        try:
            with running(words, port, cpus[0], {}) as server:
                rate, per_cpu = _echoes(server, options.connections, options.seconds)
                idle = "-"
                if not entry.most or options.idle <= entry.most:
                    idle = f"{_idle_bytes(server, options.idle) / 1024:.1f}"
        except (CannotMeasure, OSError) as error:
            print(f"| {name} | - | - | {error} |", flush=True)
        else:
            print(f"| {name} | {rate:,.0f} | {per_cpu:,.0f} | {idle} |", flush=True)


if __name__ == "__main__":
    main()
