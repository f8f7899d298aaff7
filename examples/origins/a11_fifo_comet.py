"""Lines from a FIFO to all clients, a technique once called comet.

Another program writes lines into a named pipe, `echo news > FIFO`, and each client
with an open connection gets them immediately. A FIFO is no socket, but a task can wait
for any descriptor that `select` accepts. One task reads it for all clients.

Run it from the root of a checkout::

    mkfifo /tmp/news
    twistd -n greenwsgi --app examples.origins.a11_fifo_comet:app \
        --environ FIFO=/tmp/news
    curl -N http://localhost:8080/ &
    echo 'tea is ready' > /tmp/news

It knows descriptors and the public API of txgreenwsgi.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import txgreenwsgi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi import Suspension, Task


class News:
    """The lines of one FIFO, for any number of listeners.

    The reader task runs while there is a listener.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._listeners: dict[Suspension, bool] = {}
        self._listening = 0
        self._reader: Task[None] | None = None

    def listen(self) -> Iterator[bytes]:
        """Yield each line that is written from now on. Parks."""
        self._listening += 1
        if self._reader is None or self._reader.done:
            self._reader = txgreenwsgi.spawn(self._read)
        try:
            while True:
                handle = txgreenwsgi.suspend()
                self._listeners[handle] = True
                try:
                    yield handle.wait()
                finally:
                    self._listeners.pop(handle, None)
        finally:
            self._listening -= 1
            if not self._listening and self._reader is not None:
                self._reader.cancel()

    def _read(self) -> None:
        # Open for writing too, so that there is no end of file when a writer closes it.
        fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        try:
            line = b""
            while True:
                txgreenwsgi.wait_readable(fd)
                *lines, line = (line + os.read(fd, 65536)).split(b"\n")
                for complete in lines:
                    self._send(complete + b"\n")
        finally:
            os.close(fd)

    def _send(self, line: bytes) -> None:
        listeners, self._listeners = self._listeners, {}
        for handle in listeners:
            handle.resume(line)
        # Let each listener send it and wait again.
        txgreenwsgi.sleep(0)


_news: dict[str, News] = {}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Send each line of the FIFO immediately. Parks."""
    path = environ.get("FIFO", "/tmp/news")
    news = _news.setdefault(path, News(path))
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    yield b"listening\n"
    yield from news.listen()
