"""A chat over TCP and over the web, in one process and on one thread.

A line typed in telnet appears in every browser, and vice versa: the WSGI application
and the TCP protocol share one ordinary object, `Room`. It needs no lock, because
other tasks and protocols run only while a task waits.

`services.tac` in this directory starts both. This file knows Twisted, WSGI and
txgreenwsgi. It must never know the ports.
"""

from __future__ import annotations

import html
import json
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from twisted.internet.defer import DeferredQueue, QueueOverflow
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from txgreenwsgi import TimedOut, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from twisted.internet.interfaces import IAddress
    from twisted.internet.protocol import Protocol
    from twisted.python.failure import Failure

MAX_LINES = 100
MAX_LINE_LENGTH = 500
HEARTBEAT_SECONDS = 15.0

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Chat</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
          padding: 0 1rem; color-scheme: light dark }}
</style>
<h1>Chat</h1>
<form action="say" method="post">
  <label>Name <input name="name" required maxlength="40"></label>
  <label>Line <input name="text" required maxlength="400"></label>
  <button>Say</button>
</form>
<ul id="lines">{lines}</ul>
<script>
  new EventSource("events").onmessage = (event) => {{
    const item = document.createElement("li");
    item.textContent = JSON.parse(event.data);
    document.getElementById("lines").append(item);
  }};
</script>
</html>
"""


class Room:
    """The listeners, on TCP and in browsers, and the last lines."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self._listeners: set[Callable[[str], object]] = set()

    def join(self, listener: Callable[[str], object]) -> None:
        """Call `listener` with every later line."""
        self._listeners.add(listener)

    def leave(self, listener: Callable[[str], object]) -> None:
        """Stop calling `listener`."""
        self._listeners.discard(listener)

    def say(self, name: str, text: str) -> None:
        """Send a line to all listeners. Never parks.

        Control characters are removed, so that a line stays one line.
        """
        line = "".join(filter(str.isprintable, f"{name}: {text}"))[:MAX_LINE_LENGTH]
        self.lines.append(line)
        for listener in list(self._listeners):
            listener(line)


class ChatProtocol(LineOnlyReceiver):
    """One TCP client: its first line is its name, the others go to the room."""

    delimiter = b"\n"
    MAX_LENGTH = 4 * MAX_LINE_LENGTH

    def __init__(self, room: Room) -> None:
        self._room = room
        self._name = ""

    def connectionMade(self) -> None:
        """Prompt for a name."""
        self._show("Your name?")

    def lineReceived(self, line: bytes) -> None:
        """Set the name, or send a line to the room."""
        text = line.decode("utf-8", "replace").strip()
        if self._name:
            self._room.say(self._name, text)
        elif text:
            self._name = text
            self._room.join(self._show)
            self._room.say(text, "has joined")

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Leave the room."""
        self._room.leave(self._show)

    def _show(self, line: str) -> None:
        self.sendLine(line.encode("utf-8"))


class ChatFactory(Factory):
    """The factory of TCP clients."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return the protocol of a new client."""
        return ChatProtocol(self._room)


def make_app(room: Room) -> WSGIApplication:
    """Return the WSGI application of a room.

    Returns:
        An application with a page at `/`, the target of its form at `/say` and a
        stream of server-sent events at `/events`.
    """

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        where = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if where == ("GET", "/"):
            items = "".join(f"<li>{html.escape(line)}</li>" for line in room.lines)
            return answer(start_response, "200 OK", PAGE.format(lines=items))
        if where == ("POST", "/say"):
            return say(room, environ, start_response)
        if where == ("GET", "/events"):
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return events(room)
        return answer(start_response, "404 Not Found", "Not found.\n")

    return app


def answer(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    """Send a complete response. Never parks."""
    start_response(status, [("Content-Type", "text/html; charset=utf-8")])
    return [text.encode("utf-8")]


def say(
    room: Room, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Send the line of a form to the room, then redirect to the page. May park."""
    body = environ["wsgi.input"].read(4 * MAX_LINE_LENGTH).decode("utf-8", "replace")
    form = parse_qs(body)
    if "name" not in form or "text" not in form:
        wanted = "Send a form with the fields name and text.\n"
        return answer(start_response, "400 Bad Request", wanted)
    room.say(form["name"][0], form["text"][0])
    start_response("303 See Other", [("Location", "./"), ("Content-Length", "0")])
    return []


def next_event(inbox: DeferredQueue[str]) -> bytes:
    """Return the next line as an event; a comment if there is none. Parks."""
    try:
        line = wait(inbox.get(), timeout=HEARTBEAT_SECONDS)
    except TimedOut:
        # Only a write detects that the browser has disconnected.
        return b": still here\n\n"
    return b"data: " + json.dumps(line).encode("ascii") + b"\n\n"


def events(room: Room) -> Iterator[bytes]:
    """Send each line immediately, until the browser disconnects. Parks."""
    inbox: DeferredQueue[str] = DeferredQueue(size=MAX_LINES)

    def enqueue(line: str) -> None:
        try:
            inbox.put(line)
        except QueueOverflow:
            # A slow reader: drop the line, so that its queue stays bounded.
            return

    room.join(enqueue)
    try:
        # A comment first, so that the browser sees the open connection immediately.
        yield b": welcome\n\n"
        while True:
            yield next_event(inbox)
    finally:
        # Also after a disconnect: the server closes the generator.
        room.leave(enqueue)
