"""Server-sent events for the clients of many processes, through Redis.

A line posted to any process appears at once in every browser, whichever process serves
it. Each process reads new lines over one connection, in one task, however many browsers
listen, and passes them to a bounded queue for each of them.

The lines are entries of a Redis stream. Unlike a message of PUBLISH, an entry has an id
and can be read again: a browser that reconnects, after a reload or because it was
too slow, sends the id of the last line it has seen and misses nothing.

Run it from the root of a checkout, with a Redis server on this machine::

    twistd -n greenwsgi --app examples.broadcast:app
    curl -N http://localhost:8080/events &
    curl -d text=hello http://localhost:8080/say

| Variable | Meaning |
|---|---|
| `REDIS_URL` | the server (`redis://127.0.0.1:6379`) |
| `BROADCAST_STREAM` | key of the stream (`broadcast`) |

It knows Flask, redis-py and two names of txgreenwsgi. It must never know the number of
processes.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import redis
from flask import Flask, Response, redirect, request

from txgreenwsgi import Stopping, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug.wrappers import Response as BaseResponse

    from txgreenwsgi import Task

MAX_TEXT = 500
#: Entries that Redis keeps, approximately: how far back a browser can resume.
HISTORY = 1000
#: Lines that a browser without a last id gets first.
FIRST_LINES = 20
#: Lines that wait for one browser. With more, it is disconnected, and resumes by id.
QUEUE_LINES = 100
#: Only a write detects that a browser has disconnected.
HEARTBEAT_SECONDS = 15.0
#: Duration of one read: the reader notices after it that all browsers have left.
READ_SECONDS = 5.0
RETRY_SECONDS = 1.0

# A last id comes from the client. Redis refuses numbers over 64 bits.
_ENTRY_ID = re.compile(r"[0-9]{1,18}-[0-9]{1,18}", re.ASCII)

_log = logging.getLogger(__name__)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Broadcast</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
         padding: 0 1rem; color-scheme: light dark }
</style>
<h1>Broadcast</h1>
<form action="say" method="post">
  <label>Line <input name="text" required maxlength="500" autofocus></label>
  <button>Say</button>
</form>
<ul id="lines"></ul>
<script>
  new EventSource("events").onmessage = (event) => {
    const item = document.createElement("li");
    item.textContent = JSON.parse(event.data);
    document.getElementById("lines").prepend(item);
  };
</script>
</html>
"""


class Line(NamedTuple):
    """An entry of the stream.

    Attributes:
        id: two numbers that grow with every entry, as in `1700000000000-0`.
        text: the line.
    """

    id: str
    text: str


class Subscription:
    """The lines for one browser: earlier ones, then new ones."""

    def __init__(self) -> None:
        #: Lines to send first.
        self.earlier: list[Line] = []
        self._queue: queue.Queue[Line | None] = queue.Queue(QUEUE_LINES)
        self._ended = False

    def put(self, line: Line) -> bool:
        """Enqueue a line, or end and return False if the queue is full. Never parks."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._ended = True
        return not self._ended

    def end(self) -> None:
        """End `lines` although the browser is still connected. Never parks."""
        self._ended = True
        if self._queue.empty():
            self._queue.put_nowait(None)  # resumes the task that waits

    def lines(self) -> Iterator[Line | None]:
        """Yield lines, and None after 15 s without one. Parks.

        Ends when the browser has fallen behind. The lines in the queue are not lost:
        the browser reconnects and asks for all lines after the last one it has.
        """
        yield from self.earlier
        self.earlier = []
        while not self._ended:
            try:
                line = self._queue.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                line = None
            if not self._ended:
                yield line


class Broadcast:
    """The subscriptions of this process, and the task that reads for all of them.

    The task runs while there are subscriptions.

    Args:
        client: the Redis server; its replies are decoded.
        stream: key of the stream.
    """

    def __init__(self, client: redis.Redis, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._subscriptions: set[Subscription] = set()
        self._reader: Task[None] | None = None
        #: Id of the last entry that the reader has passed on.
        self._position = ""
        # Held while the first subscription asks for the position, which parks.
        self._lock = threading.Lock()

    def publish(self, text: str) -> None:
        """Add a line to the stream. Parks."""
        self._client.xadd(
            self._stream, {"text": text}, maxlen=HISTORY, approximate=True
        )

    @contextmanager
    def subscribe(self, last_id: str | None) -> Iterator[Subscription]:
        """Return a subscription that ends with the block. Parks.

        Args:
            last_id: id of the last line that the browser has received; None for the
                last twenty lines.
        """
        subscription = Subscription()
        with self._lock:
            if self._reader is None:
                newest = _lines(self._client.xrevrange(self._stream, count=1))
                self._position = newest[0].id if newest else "0-0"
                self._reader = spawn(self._read)
            # From here on the reader enqueues every line after the position. Those up
            # to the position are read below: none is missing, and none comes twice.
            self._subscriptions.add(subscription)
            position = self._position
        try:
            subscription.earlier = self._until(position, last_id)
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def _until(self, position: str, last_id: str | None) -> list[Line]:
        if last_id is None:
            return _lines(
                self._client.xrevrange(self._stream, max=position, count=FIRST_LINES)
            )[::-1]
        return _lines(
            self._client.xrange(self._stream, min=f"({last_id}", max=position)
        )

    def _read(self) -> None:
        """Pass new lines on while there are subscriptions. Parks."""
        try:
            while not self._is_unused():
                self._read_once()
        except BaseException:
            with self._lock:
                self._reader = None
                ended, self._subscriptions = self._subscriptions, set()
            for subscription in ended:
                subscription.end()  # the browsers reconnect
            raise

    def _is_unused(self) -> bool:
        with self._lock:
            if not self._subscriptions:
                self._reader = None
            return self._reader is None

    def _read_once(self) -> None:
        try:
            found: Any = self._client.xread(
                {self._stream: self._position},
                count=100,
                block=int(READ_SECONDS * 1000),
            )
        except (redis.ConnectionError, redis.TimeoutError) as error:
            # The position is unchanged: the lines of this time follow later.
            _log.warning("broadcast: cannot read from Redis: %s", error)
            time.sleep(RETRY_SECONDS)
            return
        for _, entries in found:
            for line in _lines(entries):
                self._pass_on(line)

    def _pass_on(self, line: Line) -> None:
        self._position = line.id
        for subscription in list(self._subscriptions):
            if not subscription.put(line):
                self._subscriptions.discard(subscription)
                _log.info("broadcast: disconnecting a browser that reads too slowly")


def _lines(reply: object) -> list[Line]:
    entries = cast("list[tuple[str, dict[str, str]]]", reply)
    return [Line(each, fields["text"]) for each, fields in entries]


def make_app(broadcast: Broadcast) -> Flask:
    """Return the application.

    Returns:
        An application with a page at `/`, the target of its form at `/say`, and the
        stream of events at `/events`.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 64 * 1024

    @app.get("/")
    def index() -> str:
        """Return the page."""
        return PAGE

    @app.post("/say")
    def say() -> BaseResponse | tuple[str, int]:
        """Add the line of a form to the stream. Parks."""
        text = request.form.get("text", "").strip()
        if not 1 <= len(text) <= MAX_TEXT:
            return f"Send the field text with 1 to {MAX_TEXT} characters.\n", 400
        broadcast.publish(text)
        return redirect("./", 303)

    @app.get("/events")
    def events() -> Response:
        """Send lines until the browser disconnects or the server stops."""
        stopping = request.environ["txgreenwsgi.stopping"]
        last_id = request.headers.get("Last-Event-ID", "")
        known = last_id if _ENTRY_ID.fullmatch(last_id) else None

        def stream() -> Iterator[str]:
            # The time after which the browser reconnects, in milliseconds.
            yield "retry: 500\n\n"
            try:
                if stopping():
                    return
                with broadcast.subscribe(known) as subscription:
                    for line in subscription.lines():
                        yield as_event(line)
            except Stopping:
                # The response ends here, complete: the browser reconnects to
                # another process, or to the next one.
                return

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(stream(), mimetype="text/event-stream", headers=headers)

    return app


def as_event(line: Line | None) -> str:
    """Return a line as an event, None as a comment."""
    if line is None:
        return ": still here\n\n"
    return f"id: {line.id}\ndata: {json.dumps(line.text)}\n\n"


def connect() -> redis.Redis:
    """Return a client of the server in the environment. It connects when it is used."""
    pool = redis.BlockingConnectionPool.from_url(
        os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
        max_connections=20,
        timeout=20,
        decode_responses=True,
        # Longer than one read: a server that disappears without a word is noticed.
        socket_timeout=3 * READ_SECONDS,
        socket_connect_timeout=READ_SECONDS,
    )
    return redis.Redis(connection_pool=pool)


app = make_app(Broadcast(connect(), os.environ.get("BROADCAST_STREAM", "broadcast")))
