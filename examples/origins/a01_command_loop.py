"""A command loop that reads a character at a time, two calls below the application.

In May 2008 Manlio Perillo described on the Web-SIG list how WSGI would look on
greenlets: any function may wait, however deep it is called, so a program that
was written for a terminal can be served as it stands. His example was a loop
that reads commands through a function that gives the next character, and that
asks "are you sure?" before it obeys `quit`. This is that program, with the one
test that it needs on a network: the input may end. `a01_faithful.py` lacks it.

Run it from the root of a checkout, and type commands while it answers::

    twistd -n greenwsgi --app examples.origins.a01_command_loop:app
    curl -T - -X POST -N http://localhost:8080/

The file knows WSGI alone; it must never need an extension of any server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import InputStream, StartResponse, WSGIEnvironment

LONGEST_COMMAND = 1000


class InputEnded(Exception):
    """The client has sent all that it will send."""


def read_next_char(stream: InputStream) -> bytes:
    """Give the next character. Parks until there is one.

    Raises:
        InputEnded: if there is none.
    """
    char = stream.read(1)
    if not char:
        raise InputEnded
    return char


def read_command(stream: InputStream) -> str:
    """Give the next line, without its end. Parks until it is whole.

    A line that is too long is given in pieces, so that memory is bounded.
    """
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_COMMAND:
        line += read_next_char(stream)
    return line.decode("utf-8", "replace").strip()


def process_commands(stream: InputStream, write: Callable[[bytes], object]) -> None:
    """Obey commands until one of them is a confirmed `quit`. Parks."""
    while True:
        command = read_command(stream)
        if command == "quit":
            write(b"are you sure? ")
            reply = read_next_char(stream)
            if reply == b"y":
                write(b"bye\n")
                return
            if reply != b"\n":
                read_command(stream)  # the rest of a line that was not a yes
            write(b"carrying on\n")
        elif command:
            write(f"you said: {command}\n".encode())


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer each command as soon as it has been read. Parks."""
    write = start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    write(b"ready\n")
    try:
        process_commands(environ["wsgi.input"], write)
    except InputEnded:
        write(b"end of input\n")
    return []
