"""A chat over TCP and over the web, in one process and on one thread.

What a telnet user types shows up in every browser, and the other way round: the
WSGI application and the TCP protocol share one ordinary object, `Room`. No lock
guards it, because nothing but a wait lets another task or protocol run.

`services.tac` beside this file starts both. This file knows Twisted, WSGI and
txgreenwsgi; it must never know which ports are listened on.
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

LINES_KEPT = 100
LONGEST_LINE = 500
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
    """Everybody who listens, by TCP or in a browser, and the last lines said."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._listeners: set[Callable[[str], object]] = set()

    def join(self, listener: Callable[[str], object]) -> None:
        """Call `listener` with every line that is said from now on."""
        self._listeners.add(listener)

    def leave(self, listener: Callable[[str], object]) -> None:
        """Stop calling `listener`."""
        self._listeners.discard(listener)

    def say(self, name: str, text: str) -> None:
        """Tell everybody. Never parks.

        Control characters are left out, so that a line stays one line.
        """
        line = "".join(filter(str.isprintable, f"{name}: {text}"))[:LONGEST_LINE]
        self.lines.append(line)
        for listener in list(self._listeners):
            listener(line)


class ChatProtocol(LineOnlyReceiver):
    """One TCP client: its first line is its name, each later one is said."""

    delimiter = b"\n"
    MAX_LENGTH = 4 * LONGEST_LINE

    def __init__(self, room: Room) -> None:
        self._room = room
        self._name = ""

    def connectionMade(self) -> None:
        """Ask for a name."""
        self._show("Your name?")

    def lineReceived(self, line: bytes) -> None:
        """Take the name, then say what comes."""
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
    """Makes the protocol of each TCP client."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Let one more client in."""
        return ChatProtocol(self._room)


def make_app(room: Room) -> WSGIApplication:
    """Make the web side of the room.

    Returns:
        A WSGI application with a page at `/`, a form's target at `/say` and a
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
        return answer(start_response, "404 Not Found", "There is nothing here.\n")

    return app


def answer(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    """Answer with a whole text. Never parks."""
    start_response(status, [("Content-Type", "text/html; charset=utf-8")])
    return [text.encode("utf-8")]


def say(
    room: Room, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Say what the form holds, then lead the browser back to the page. May park."""
    body = environ["wsgi.input"].read(4 * LONGEST_LINE).decode("utf-8", "replace")
    form = parse_qs(body)
    if "name" not in form or "text" not in form:
        wanted = "Send a form with the fields name and text.\n"
        return answer(start_response, "400 Bad Request", wanted)
    room.say(form["name"][0], form["text"][0])
    start_response("303 See Other", [("Location", "./"), ("Content-Length", "0")])
    return []


def next_event(inbox: DeferredQueue[str]) -> bytes:
    """Give the next line as an event, or a comment after a silence. Parks."""
    try:
        line = wait(inbox.get(), timeout=HEARTBEAT_SECONDS)
    except TimedOut:
        # Silence would not tell us that the browser has gone; a write does.
        return b": still here\n\n"
    return b"data: " + json.dumps(line).encode("ascii") + b"\n\n"


def events(room: Room) -> Iterator[bytes]:
    """Send each line as it is said, for as long as the browser listens. Parks."""
    inbox: DeferredQueue[str] = DeferredQueue(size=LINES_KEPT)

    def hear(line: str) -> None:
        try:
            inbox.put(line)
        except QueueOverflow:
            # Somebody reads too slowly: drop the line rather than keep an
            # unlimited number of them for one browser.
            return

    room.join(hear)
    try:
        # A first comment, so that the browser knows at once that it is connected.
        yield b": welcome\n\n"
        while True:
            yield next_event(inbox)
    finally:
        # Runs when the browser leaves, too: the server closes the generator.
        room.leave(hear)
