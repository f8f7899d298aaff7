"""examples/websocket_chat.py: WebSocket, events and TCP; two workers with Redis."""

from __future__ import annotations

import contextlib
import time

from twisted.trial.unittest import SynchronousTestCase
from websockets.sync.client import ClientConnection, connect

from .command_server import CommandServer
from .processes import (
    CHECKOUT,
    LOOPBACK,
    Server,
    free_ports,
    start_example,
    wait_for,
)
from .services import Redis

SECONDS = 60.0


def chat(server: Server) -> ClientConnection:
    """Return a client of the chat."""
    return connect(f"ws://{LOOPBACK}:{server.port}/socket", open_timeout=SECONDS)


class ChatTests(SynchronousTestCase):
    """The chat in one process, and in two."""

    def test_three_ways(self) -> None:
        """A line over WebSocket, HTTP or TCP arrives at the clients of all three."""
        server = start_example(
            self, "websocket_chat.tac", "CHAT_ENDPOINT", "WEB_ENDPOINT"
        )
        server.ports.reverse()  # `fetch` uses the first
        web, lines = server.ports
        with (
            server.connect(lines) as telnet,
            server.connect(web) as events,
            chat(server) as socket,
            chat(server) as other,
        ):
            events.send(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            events.read_until(b": welcome\n\n")
            telnet.send(b"by TCP\n")
            for client in (socket, other):
                self.assertEqual(client.recv(SECONDS), "by TCP")
            socket.send("by WebSocket")
            self.assertEqual(other.recv(SECONDS), "by WebSocket")
            self.assertEqual(socket.recv(SECONDS), "by WebSocket")
            self.assertEqual(server.fetch("/say", "POST", b"text=").status, 400)
            telnet.read_until(b"by TCP\nby WebSocket\n")
            events.read_until(b'data: "by TCP"\n\n')
            events.read_until(b'data: "by WebSocket"\n\n')
            self.assertIn("<h1>Chat</h1>", server.fetch("/").text)
        server.ask_to_stop()
        server.wait_ended()

    def test_two_workers(self) -> None:
        """With Redis, a line reaches the clients of both workers."""
        with Redis() as redis:
            (port,) = free_ports(1)
            server = CommandServer(
                self,
                [
                    *("examples.websocket_chat:app", "--workers=2"),
                    *("--health-path=/-", "--control=none"),
                    f"--listen=tcp:{port}:interface={LOOPBACK}",
                ],
                CHECKOUT,
                port,
                environ={"REDIS_URL": f"redis://{LOOPBACK}:{redis.port}"},
            )
            server.wait_ready()
            clients = [chat(server) for _ in range(20)]
            try:
                heard = set()

                def all_hear() -> bool:
                    """Say a line; return whether each client has heard one."""
                    clients[0].send(f"at {time.monotonic()}")
                    time.sleep(0.2)
                    for number, client in enumerate(clients):
                        with contextlib.suppress(TimeoutError):
                            while client.recv(0):
                                heard.add(number)
                    return len(heard) == len(clients)

                wait_for(all_hear, lambda: f"lines at all clients, not only {heard}")
            finally:
                for client in clients:
                    client.close()
