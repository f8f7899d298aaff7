"""A command loop that reads one character at a time, two calls below the application.

In May 2008 Manlio Perillo described on the Web-SIG list how WSGI would look on
greenlets: any function may wait, at any call depth, so a program written for a
terminal can be served unchanged. His example was a loop that reads commands through a
function that returns the next character, and that asks "are you sure?" before it
executes `quit`. This is that program, with the one check that it needs on a network:
the input may end. `a01_faithful.py` lacks it.

Run it from the root of a checkout, and type commands while it responds::

    twistd -n greenwsgi --app examples.origins.a01_command_loop:app
    curl -T - -X POST -N http://localhost:8080/

It knows only WSGI. It must never need an extension of a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import InputStream, StartResponse, WSGIEnvironment

MAX_COMMAND_LENGTH = 1000


class InputEnded(Exception):
    """The request body has ended."""


def read_next_char(stream: InputStream) -> bytes:
    """Return the next character. Parks until it arrives.

    Raises:
        InputEnded: the body has ended.
    """
    char = stream.read(1)
    if not char:
        raise InputEnded
    return char


def read_command(stream: InputStream) -> str:
    """Return the next line without its line break. Parks until it is complete.

    A long line is returned in pieces, so that memory use is bounded.
    """
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_COMMAND_LENGTH:
        line += read_next_char(stream)
    return line.decode("utf-8", "replace").strip()


def process_commands(stream: InputStream, write: Callable[[bytes], object]) -> None:
    """Execute commands until a confirmed `quit`. Parks."""
    while True:
        command = read_command(stream)
        if command == "quit":
            write(b"are you sure? ")
            reply = read_next_char(stream)
            if reply == b"y":
                write(b"bye\n")
                return
            if reply != b"\n":
                read_command(stream)  # the rest of a line that does not confirm
            write(b"carrying on\n")
        elif command:
            write(f"you said: {command}\n".encode())


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Respond to each command immediately. Parks."""
    write = start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    write(b"ready\n")
    try:
        process_commands(environ["wsgi.input"], write)
    except InputEnded:
        write(b"end of input\n")
    return []
