"""Lines from a FIFO to everybody who listens: what was called comet.

A program on the machine writes lines into a named pipe, `echo news > FIFO`, and
each browser that has the page open gets them at once. A FIFO is no socket, but
anything that `select` takes can be waited for. One task reads it, for all.

Run it from the root of a checkout::

    mkfifo /tmp/news
    twistd -n greenwsgi --app examples.origins.a11_fifo_comet:app \
        --environ FIFO=/tmp/news
    curl -N http://localhost:8080/ &
    echo 'tea is ready' > /tmp/news

The file knows descriptors and the public names of txgreenwsgi.
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
    """What one FIFO says, to those who listen.

    The reader runs as long as anybody does.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._listeners: dict[Suspension, bool] = {}
        self._listening = 0
        self._reader: Task[None] | None = None

    def listen(self) -> Iterator[bytes]:
        """Give each line that is written from now on. Parks."""
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
        # Opened for writing too, it has no end when a writer closes it.
        fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        try:
            line = b""
            while True:
                txgreenwsgi.wait_readable(fd)
                *lines, line = (line + os.read(fd, 65536)).split(b"\n")
                for complete in lines:
                    self._tell(complete + b"\n")
        finally:
            os.close(fd)

    def _tell(self, line: bytes) -> None:
        listeners, self._listeners = self._listeners, {}
        for handle in listeners:
            handle.resume(line)
        # Each is about to send it, and to listen again.
        txgreenwsgi.sleep(0)


_news: dict[str, News] = {}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Send each line of the FIFO as it is written. Parks."""
    path = environ.get("FIFO", "/tmp/news")
    news = _news.setdefault(path, News(path))
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    yield b"listening\n"
    yield from news.listen()
