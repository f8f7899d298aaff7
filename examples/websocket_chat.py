"""A chat over WebSocket, server-sent events and TCP, of one or many processes.

A line that is sent over any of the three appears at all clients. They share one object,
`Room`, in one process; with `REDIS_URL`, the rooms of all processes share their lines
through one Redis channel.

Run it from the root of a checkout, with Flask and wsproto installed::

    txgreenwsgi examples.websocket_chat:app
    REDIS_URL=redis://127.0.0.1:6379 txgreenwsgi examples.websocket_chat:app --workers 2
    twistd -ny examples/websocket_chat.tac         # with TCP on port 8023

| Variable | Meaning |
|---|---|
| `REDIS_URL` | the server of the channel; without it, each process has its own room |
| `CHAT_CHANNEL` | name of the channel (`websocket_chat`) |

It knows Flask, redis-py, Twisted and three names of txgreenwsgi. It must never know the
number of processes.
"""

from __future__ import annotations

import json
import os
import queue
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis
from flask import Flask, Response, request
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from txgreenwsgi import WebSocketClosed, spawn, websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.interfaces import IAddress
    from twisted.internet.protocol import Protocol
    from twisted.python.failure import Failure

    from txgreenwsgi import Task, WebSocket

MAX_TEXT = 500
#: Lines that wait for one client. With more, it is disconnected.
QUEUE_LINES = 100
#: Only a write detects that a reader of events has left.
HEARTBEAT_SECONDS = 15.0
RETRY_SECONDS = 1.0

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Chat</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
         padding: 0 1rem; color-scheme: light dark }
</style>
<h1>Chat</h1>
<form><label>Line <input id="text" maxlength="500" autofocus></label>
  <button>Say</button></form>
<ul id="lines" aria-live="polite"></ul>
<script>
  const lines = document.getElementById("lines");
  let socket;
  function connect() {
    const url = new URL("socket", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    socket = new WebSocket(url);
    socket.onmessage = (event) => {
      const item = document.createElement("li");
      item.textContent = event.data;
      lines.prepend(item);
    };
    socket.onclose = () => setTimeout(connect, 1000);
  }
  connect();
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    socket.send(document.getElementById("text").value);
    document.getElementById("text").value = "";
  };
</script>
"""


class Client:
    """One listener: a bounded queue of lines.

    Attributes:
        lost: whether the queue was full: the client is too slow.
    """

    def __init__(self) -> None:
        self.lost = False
        self._lines: queue.Queue[str] = queue.Queue(QUEUE_LINES)

    def deliver(self, line: str) -> None:
        """Queue a line. Never waits."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.lost = True

    def next(self, seconds: float | None = None) -> str | None:
        """Return the next line; None if there is none in `seconds`. Parks."""
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return None


class Room:
    """The clients of one process, and its share in the channel.

    No lock is needed: tasks switch only where they wait.
    """

    def __init__(self, url: str = "", channel: str = "websocket_chat") -> None:
        self.clients: set[Any] = set()
        self._redis = redis.Redis.from_url(url) if url else None
        self._channel = channel
        self._reader: Task[None] | None = None

    def join(self, client: Any) -> None:
        """Add a client, which has a method `deliver`."""
        self.clients.add(client)
        if self._redis is not None and self._reader is None:
            self._reader = spawn(self._read_channel)

    def leave(self, client: Any) -> None:
        """Remove a client. The task of the channel ends with the last one."""
        self.clients.discard(client)
        if not self.clients and self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def say(self, line: str) -> None:
        """Send a line to all clients of all processes. May park."""
        line = line[:MAX_TEXT]
        if self._redis is not None:
            self._redis.publish(self._channel, line)
        else:
            self._deliver(line)

    def _deliver(self, line: str) -> None:
        for client in list(self.clients):
            client.deliver(line)

    def _read_channel(self) -> None:
        """Deliver the lines of the channel, over one connection."""
        assert self._redis is not None
        while True:
            with (
                suppress(redis.ConnectionError),
                self._redis.pubsub(ignore_subscribe_messages=True) as channel,
            ):
                channel.subscribe(self._channel)
                for message in channel.listen():
                    self._deliver(message["data"].decode())
            time.sleep(RETRY_SECONDS)


def make_app(room: Room) -> Flask:
    """Return the web side of a room."""
    flask = Flask(__name__)

    @flask.get("/")
    def page() -> str:
        return PAGE

    @flask.get("/socket", websocket=True)
    def socket() -> str:
        with websocket(request.environ, max_message=4 * MAX_TEXT) as ws:
            client = Client()
            room.join(client)
            sender = spawn(send_lines, ws, client)
            try:
                for message in ws:
                    if isinstance(message, str) and message.strip():
                        room.say(message)
            finally:
                room.leave(client)
                sender.cancel()
        return ""

    @flask.get("/events")
    def events() -> Response:
        return Response(event_lines(room), content_type="text/event-stream")

    @flask.post("/say")
    def say() -> tuple[str, int]:
        room.say(request.form["text"])
        return "", 204

    return flask


def send_lines(ws: WebSocket, client: Client) -> None:
    """Send the lines of a client; close if it is too slow. Parks."""
    try:
        while (line := client.next()) is not None:
            ws.send(line)
            if client.lost:
                ws.close(1008, "too slow")
    except WebSocketClosed:
        return  # the other task notices it too


def event_lines(room: Room) -> Iterator[str]:
    """Yield the lines of a room as server-sent events."""
    client = Client()
    room.join(client)
    try:
        yield ": welcome\n\n"
        while not client.lost:
            line = client.next(HEARTBEAT_SECONDS)
            yield (
                ": still here\n\n" if line is None else f"data: {json.dumps(line)}\n\n"
            )
    finally:
        room.leave(client)


class ChatProtocol(LineOnlyReceiver):
    """A client over TCP: each line is said, each line of others is written."""

    delimiter = b"\n"

    def __init__(self, room: Room) -> None:
        self._room = room

    def connectionMade(self) -> None:
        """Join."""
        self._room.join(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Leave."""
        self._room.leave(self)

    def lineReceived(self, line: bytes) -> None:
        """Say a line, in a task, because Redis may have to be waited for."""
        spawn(self._room.say, line.decode("utf-8", "replace").strip())

    def deliver(self, line: str) -> None:
        """Write a line."""
        self.sendLine(line.encode())


class ChatFactory(Factory):
    """Makes the protocols of a room."""

    noisy = False

    def __init__(self, room: Room) -> None:
        self._room = room

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return the protocol of a connection."""
        return ChatProtocol(self._room)


def make_room() -> Room:
    """Return the room that the environment describes."""
    channel = os.environ.get("CHAT_CHANNEL", "websocket_chat")
    return Room(os.environ.get("REDIS_URL", ""), channel)


room = make_room()
app = make_app(room)
