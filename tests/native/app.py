"""The application whose behaviour is compared in both modes.

Not a test module: `pair.py` serves it in two processes. The path selects the behaviour;
`/respond` takes the response from the query, as `encode` writes it.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import io
import json
import os
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from txgreenwsgi._native import lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse

    Environ = dict[str, Any]

#: Variables that differ between two servers, or between two requests of one.
VARYING = frozenset(
    {"REMOTE_PORT", "SERVER_PORT", "txgreenwsgi.request_id", "HTTP_X_REQUEST_ID"}
)

#: Objects that C code uses in each request. A reference too many or too few shows.
SHARED: tuple[object, ...] = (
    *(None, True, False, 0, 1, (), "", b""),
    *("GET", "HTTP/1.1", "http", "200 OK", "Content-Length", "PATH_INFO", "wsgi.input"),
    *(dict, list, tuple, bytes, str),
)


#: How long `/until` holds up the reactor at most.
UNTIL_SECONDS = 30.0

_event = threading.Event()
_variable: ContextVar[str] = ContextVar("_variable", default="outside")
# Set in the Context of the program, which is that of the reactor greenlet.
_program: ContextVar[str] = ContextVar("_program", default="outside")
_program.set("program")
# The values that callbacks for the end of `/end` have found.
_found_at_end: list[str] = []

# Processes that `/fork` has started, and the descriptors that end them.
_children: list[tuple[int, int]] = []


class AppError(Exception):
    """The exception that the application raises on purpose."""


class Text(str):
    """A subclass of str, which a fast path must not mistake for str."""

    __slots__ = ()

    def __str__(self) -> str:
        return "X-Injected: 1\r\n"


class Octets(bytes):
    """A subclass of bytes with a length of its own."""

    __slots__ = ()

    def __len__(self) -> int:
        return 1


def encode(spec: dict[str, Any]) -> str:
    """Return a response as a query of `/respond`."""
    return base64.urlsafe_b64encode(json.dumps(spec).encode()).decode()


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer by path."""
    path = environ["PATH_INFO"]
    match path:
        case "/respond":
            response: Iterable[bytes] = _respond(environ, start_response)
            return response
        case "/body" | "/lines" | "/some" | "/pieces" | "/unread":
            return _plain(start_response, _read(environ, path))
        case "/idle":
            # Without this request.
            count = len(environ["txgreenwsgi.requests"]()) - 1
            return _plain(start_response, b"%d" % count)
        case "/lanes":
            return _plain(start_response, json.dumps(lanes.counts()).encode())
        case "/state":
            return _plain(start_response, json.dumps(_state()).encode())
        case "/sleep":
            # One turn of the reactor: no test depends on time.
            environ["txgreenwsgi.sleep"](0)
            return _plain(start_response, b"slept\n")
        case "/until":
            until = time.monotonic() + UNTIL_SECONDS
            while not os.path.exists(environ["QUERY_STRING"]):
                if time.monotonic() > until:
                    return _plain(start_response, b"late\n")
            return _plain(start_response, b"in time\n")
        case "/end":
            task = environ["txgreenwsgi.current_task"]()
            task.deferred().addCallback(lambda _: _note_end())
            return _plain(start_response, b"ends\n")
        case "/ended":
            return _plain(start_response, json.dumps(_found_at_end).encode())
        case "/wait":
            return _plain(start_response, b"%d\n" % _event.wait(60))
        case "/set":
            _event.set()
            return _plain(start_response, b"set\n")
        case "/variable":
            before = _variable.get()
            _variable.set("inside")
            return _plain(start_response, before.encode())
        case "/port":
            return _plain(start_response, environ["REMOTE_PORT"].encode())
        case "/clear":
            text = described(environ)
            environ.clear()
            return _plain(start_response, text.encode("latin-1", "replace"))
        case "/fail":
            raise AppError(path)
        case "/fork":
            _fork()
            return _plain(start_response, b"forked\n")
        case "/joined":
            while _children:
                pid, writing = _children.pop()
                os.close(writing)
                os.waitpid(pid, 0)
            return _plain(start_response, b"joined\n")
        case "/chunks":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return (b"%d\n" % number for number in range(10))
        case "/hello":
            return _plain(start_response, b"hello, world!\n")
    return _plain(start_response, described(environ).encode("latin-1", "replace"))


def _note_end() -> None:
    """Note the variable of the Context, and set it for the next callback."""
    _found_at_end.append(_program.get())
    _program.set("set at an end")


def _fork() -> None:
    """Start a process that has the connections of this one, until `/joined`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    _children.append((pid, writing))


def described(environ: Environ) -> str:
    """Return the variables of an environ as text, one in each line."""
    lines = []
    for name in sorted(environ):
        value = environ[name]
        if name in VARYING:
            continue
        if type(value) in (str, int, bool, tuple, float):
            lines.append(f"{name}: {value!r}")
        else:
            lines.append(f"{name}: callable={callable(value)}")
    return "\n".join(lines) + "\n"


def _plain(start_response: StartResponse, body: bytes) -> list[bytes]:
    start_response(
        "200 OK",
        [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
    )
    return [body]


def _read(environ: Environ, path: str) -> bytes:
    body = environ["wsgi.input"]
    match path:
        case "/unread":
            return b"unread\n"
        case "/lines":
            parts = list(body)
        case "/some":
            parts = [body.read(2), body.readline(), body.readline(3)]
        case "/pieces":
            parts = list(iter(lambda: body.read(7), b""))
        case _:
            parts = [body.read(), body.read()]
    return repr((parts, environ.get("CONTENT_LENGTH"))).encode()


def _value(given: Any) -> Any:
    """Return a value of the kind that JSON cannot express."""
    match given:
        case {"bytes": text}:
            return text.encode("latin-1")
        case {"text": text}:
            return Text(text)
        case {"octets": text}:
            return Octets(text.encode("latin-1"))
        case {"array": text}:
            return bytearray(text.encode("latin-1"))
        case {"repeat": [text, count]}:
            return text.encode("latin-1") * count
    return given


def _respond(environ: Environ, start_response: StartResponse) -> Any:
    spec = json.loads(base64.urlsafe_b64decode(environ["QUERY_STRING"]))
    if spec.get("raise") == "before":
        raise AppError("before the head")
    fields: Any = [tuple(map(_value, field)) for field in spec["fields"]]
    if spec.get("fields_as") == "tuple":
        fields = tuple(fields)
    elif spec.get("fields_as") == "iterator":
        fields = iter(fields)
    elif spec.get("fields_as") == "lists":
        fields = [list(field) for field in fields]
    blocks = [_value(block) for block in spec["blocks"]]
    by = spec["by"]
    if by == "late head":
        return _late(start_response, _value(spec["status"]), fields, blocks)
    write = start_response(_value(spec["status"]), fields)
    if spec.get("again"):
        _start_again(spec, start_response, fields)
    if spec.get("raise") == "after":
        raise AppError("after the head")
    if by == "write":
        for block in blocks:
            write(block)
        return []
    if by == "both":
        for block in blocks[:1]:
            write(block)
        return blocks[1:]
    if by == "tuple":
        return tuple(blocks)
    if by == "iterator":
        return iter(blocks)
    if by == "file":
        return environ["wsgi.file_wrapper"](io.BytesIO(b"".join(blocks)), 5)
    if by == "one":
        return blocks[0] if blocks else None
    if by in ("generator", "sleeping", "failing", "failing first", "writing"):
        return _generated(environ, blocks, by, write)
    if by == "closing iterator":
        return ClosingIterator(blocks, fails=bool(spec.get("close_fails")))
    if by == "closing":
        return Closing(blocks, fails=bool(spec.get("close_fails")))
    return blocks


def _start_again(
    spec: dict[str, Any], start_response: StartResponse, fields: Any
) -> None:
    """Call start_response a second time, with or without exc_info."""
    if spec["again"] == "plain":
        start_response("201 Again", fields)
        return
    try:
        raise AppError("replaced")
    except AppError:
        start_response("202 Again", [("X-Again", "1")], sys.exc_info())


def _late(
    start_response: StartResponse, status: Any, fields: Any, blocks: list[Any]
) -> Iterator[Any]:
    start_response(status, fields)
    yield from blocks


def _generated(
    environ: Environ, blocks: list[Any], by: str, write: Callable[[bytes], object]
) -> Iterator[Any]:
    if by == "failing first":
        raise AppError("before the first block")
    for block in blocks:
        if by == "writing":
            write(b"written")
        if by == "sleeping":
            environ["txgreenwsgi.sleep"](0)
        yield block
    if by == "failing":
        raise AppError("during the iteration")


class _Closing:
    """An iterable with a `close` that is called once.

    Args:
        blocks: to yield.
        fails: whether `close` raises.
    """

    def __init__(self, blocks: list[Any], *, fails: bool) -> None:
        self._blocks = blocks
        self._fails = fails
        self._closed = False

    def __iter__(self) -> Iterator[Any]:
        return iter(self._blocks)

    def close(self) -> None:
        """Print a line, and fail if the test says so."""
        print("closed again" if self._closed else "closed")
        self._closed = True
        if self._fails:
            self._fail()

    def _fail(self) -> NoReturn:
        raise AppError("in close()")


class Closing(_Closing):
    """With a length, like a list."""

    def __len__(self) -> int:
        return len(self._blocks)


class ClosingIterator(_Closing):
    """Without a length, like the responses of frameworks."""


def _state() -> dict[str, Any]:
    """Return counts that grow with each leaked object or reference."""
    gc.collect()
    with contextlib.suppress(ImportError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    return {
        "blocks": sys.getallocatedblocks(),
        "objects": len(gc.get_objects()),
        "references": [sys.getrefcount(each) for each in SHARED],
    }
