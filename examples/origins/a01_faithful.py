"""The command loop as first written, without a check for the end of the input.

After the end, `read(1)` returns an empty string each time, so this loop never ends. It
is kept unchanged because a server must survive it: reads at the end of the input let
the reactor run regularly, so other requests are served, and a request timeout ends
the loop. Copy `a01_command_loop.py`, not this file.

Run it from the root of a checkout; it ends after two seconds::

    twistd -n greenwsgi --app examples.origins.a01_faithful:app --request-timeout 2
    curl -d help http://localhost:8080/

It knows only WSGI. It must never be fixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import InputStream, StartResponse, WSGIEnvironment


def read_next_char(stream: InputStream) -> bytes:
    """Return the next character; b"" after the last one. Parks."""
    return stream.read(1)


def process_commands(stream: InputStream, write: Callable[[bytes], object]) -> None:
    """Execute commands until a confirmed `quit`. Parks."""
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
    """Run the loop for a POST, which may never end; respond to others immediately."""
    write = start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    if environ["REQUEST_METHOD"] == "POST":
        process_commands(environ["wsgi.input"], write)
    else:
        write(b"still here\n")
    return []
