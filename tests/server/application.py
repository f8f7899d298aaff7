"""One WSGI application for all tests of the server: each route does one thing.

It conforms to PEP 3333, so it runs under `wsgiref.validate` too. Violations are in the
tests about them. It knows nothing of the server but the functions in its environ.
"""

from __future__ import annotations

import io
import json
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.validate import validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Environ = dict[str, Any]
    Start = Callable[..., Callable[[bytes], object]]
    Application = Callable[[Environ, Start], Iterable[bytes]]

__all__ = ["ROUTES", "Failure", "application", "validated"]

TEXT = [("Content-Type", "text/plain")]

#: The number of blocks that the server has taken from all streams.
taken = {"blocks": 0}


class Failure(Exception):
    """The exception of the failing routes."""


def query(environ: Environ, name: str, default: str) -> str:
    """Return a parameter of the query string."""
    found: list[str] = parse_qs(environ["QUERY_STRING"]).get(name, [default])
    return found[0]


def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    """Return one block, in a list."""
    start("200 OK", TEXT)
    return [b"hello\n"]


def echo(environ: Environ, start: Start) -> Iterable[bytes]:
    """Return the request body, read at once."""
    body = environ["wsgi.input"].read(-1)
    start("200 OK", TEXT)
    return [body]


def echo_slices(environ: Environ, start: Start) -> Iterator[bytes]:
    """Yield the request body as it is read, by `size` bytes after a pause each."""
    size = int(query(environ, "size", "10"))
    pause = float(query(environ, "pause", "0"))
    start("200 OK", TEXT)
    while True:
        if pause:
            environ["txgreenwsgi.sleep"](pause)
        block = environ["wsgi.input"].read(size)
        if not block:
            return
        yield block


def lines(environ: Environ, start: Start) -> Iterable[bytes]:
    """Return the lines of the request body, each in brackets."""
    found = [b"[" + line + b"]" for line in environ["wsgi.input"]]
    start("200 OK", TEXT)
    return found


def unread(environ: Environ, start: Start) -> Iterable[bytes]:
    """Respond without reading the request body."""
    start("403 Forbidden", TEXT)
    return [b"no\n"]


def blocks(environ: Environ, start: Start) -> Iterable[bytes]:
    """Return three blocks, in a list."""
    start("200 OK", TEXT)
    return [b"one\n", b"two\n", b"three\n"]


def stream(environ: Environ, start: Start) -> Iterator[bytes]:
    """Yield `count` blocks of `size` bytes with a pause before each."""
    count = int(query(environ, "count", "3"))
    size = int(query(environ, "size", "4"))
    pause = float(query(environ, "pause", "0"))
    start("200 OK", TEXT)
    for number in range(count):
        if pause:
            environ["txgreenwsgi.sleep"](pause)
        taken["blocks"] += 1
        yield bytes([65 + number % 26]) * size


def written(environ: Environ, start: Start) -> Iterable[bytes]:
    """Send two blocks by write(), and return a third."""
    write = start("200 OK", TEXT)
    write(b"one\n")
    write(b"two\n")
    return [b"three\n"]


def late(environ: Environ, start: Start) -> Iterator[bytes]:
    """Yield empty blocks before start_response, as PEP 3333 allows."""
    yield b""
    yield b""
    start("200 OK", TEXT)
    yield b"late\n"


def with_length(environ: Environ, start: Start) -> Iterator[bytes]:
    """Yield a body with a Content-Length."""
    start("200 OK", [*TEXT, ("Content-Length", "8")])
    yield b"four"
    yield b"more"


def empty(environ: Environ, start: Start) -> Iterable[bytes]:
    """Return no block."""
    start("200 OK", TEXT)
    return []


def no_content(environ: Environ, start: Start) -> Iterable[bytes]:
    """Respond 204, which has no body."""
    start("204 No Content", [])
    return []


def not_modified(environ: Environ, start: Start) -> Iterable[bytes]:
    """Respond 304, which has no body but declares its length."""
    start("304 Not Modified", [("ETag", '"x"'), ("Content-Length", "1234")])
    return []


def environ_as_json(environ: Environ, start: Start) -> Iterable[bytes]:
    """Return the environ as JSON; values that are no strings by their repr()."""
    shown = {
        key: value if isinstance(value, str) else repr(value)
        for key, value in environ.items()
    }
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode("ascii")]


def sleeping(environ: Environ, start: Start) -> Iterable[bytes]:
    """Respond after `seconds`."""
    environ["txgreenwsgi.sleep"](float(query(environ, "seconds", "1")))
    start("200 OK", TEXT)
    return [b"slept\n"]


def busy(environ: Environ, start: Start) -> Iterator[bytes]:
    """Yield a block, compute for `seconds` without parking, yield another."""
    start("200 OK", TEXT)
    yield b"first\n"
    until = time.monotonic() + float(query(environ, "seconds", "1"))
    while time.monotonic() < until:
        pass
    yield b"second\n"


def file(environ: Environ, start: Start) -> Iterable[bytes]:
    """Send the file at `path` from `offset` by the wrapper; `length` is declared."""
    opened = open(query(environ, "path", ""), "rb")  # noqa: SIM115 - closed by close()
    opened.seek(int(query(environ, "offset", "0")))
    length = query(environ, "length", "")
    start("200 OK", [*TEXT, *([("Content-Length", length)] if length else [])])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened, 4096)
    return wrapped


def memory_file(environ: Environ, start: Start) -> Iterable[bytes]:
    """Send a BytesIO by the file wrapper."""
    start("200 OK", TEXT)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"in memory\n"))
    return wrapped


def fail_before(environ: Environ, start: Start) -> Iterable[bytes]:
    """Raise an exception before start_response."""
    raise Failure("before the head")


def fail_after(environ: Environ, start: Start) -> Iterator[bytes]:
    """Raise an exception after a block."""
    start("200 OK", TEXT)
    yield b"some\n"
    raise Failure("after the head")


def census(environ: Environ, start: Start) -> Iterable[bytes]:
    """Return the numbers of other requests in flight, descriptors and taken blocks."""
    others = [
        request
        for request in environ["txgreenwsgi.requests"]()
        if request.request_id != environ["txgreenwsgi.request_id"]
    ]
    counted = {
        "requests": len(others),
        "files": len(os.listdir("/proc/self/fd")),
        "blocks": taken["blocks"],
    }
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(counted).encode("ascii")]


ROUTES: dict[str, Application] = {
    "/": hello,
    "/blocks": blocks,
    "/busy": busy,
    "/census": census,
    "/echo": echo,
    "/echo-slices": echo_slices,
    "/empty": empty,
    "/environ": environ_as_json,
    "/fail-after": fail_after,
    "/fail-before": fail_before,
    "/file": file,
    "/late": late,
    "/lines": lines,
    "/memory-file": memory_file,
    "/no-content": no_content,
    "/not-modified": not_modified,
    "/sleep": sleeping,
    "/stream": stream,
    "/unread": unread,
    "/with-length": with_length,
    "/written": written,
}


def application(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Call the route of the path."""
    route = ROUTES.get(environ["PATH_INFO"])
    if route is None:
        start_response("404 Not Found", TEXT)
        return [b"no such route\n"]
    return route(environ, start_response)


validated: Application = validator(application)
"""The same, with the standard library's checker of PEP 3333 between it and us."""
