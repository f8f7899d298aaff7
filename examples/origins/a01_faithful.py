"""The command loop as it was first written: it never asks whether the input has ended.

Past the end `read(1)` gives an empty string, for ever, and so this loop runs for
ever. It is kept as it was because a server must survive it: reading at the end
of the input lets the reactor run now and then, so others are served meanwhile,
and a request timeout ends the loop. Copy `a01_command_loop.py`, not this.

Run it from the root of a checkout, and see it end after two seconds::

    twistd -n greenwsgi --app examples.origins.a01_faithful:app --request-timeout 2
    curl -d help http://localhost:8080/

The file knows WSGI alone; it must never be mended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import InputStream, StartResponse, WSGIEnvironment


def read_next_char(stream: InputStream) -> bytes:
    """Give the next character, or nothing, again and again, after the last. Parks."""
    return stream.read(1)


def process_commands(stream: InputStream, write: Callable[[bytes], object]) -> None:
    """Obey commands until one of them is a confirmed `quit`. Parks."""
    while True:
        line = b""
        while not line.endswith(b"\n"):
            line += read_next_char(stream)
        if line == b"quit\n":
            write(b"are you sure? ")
            if read_next_char(stream) != b"y":
                continue
            return
        write(b"you said: " + line)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a POST by the loop, which may never end, and anything else at once."""
    write = start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    if environ["REQUEST_METHOD"] == "POST":
        process_commands(environ["wsgi.input"], write)
    else:
        write(b"still here\n")
    return []
