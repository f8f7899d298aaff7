"""The echo of `a02_awsgi_echo.py` in several functions, with a trampoline.

A generator that waits can call another one only under a trampoline, which keeps the
stack of generators. It resumes the innermost one, passes its result or exception to
its caller, and yields the descriptor that it waits for to the server. AWSGI came with
one, as most libraries of that time did. Every function in between must be a
generator, and every call of one a `yield`.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a03_trampoline:app
    curl -d 'hello' http://localhost:8080/

It knows AWSGI. Only the last line knows the adapter.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from txgreenwsgi.origins import awsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    Steps = Generator[Any, Any, Any]

SILENCE_SECONDS = 1.0
SILENCE = b"nothing came for a second\n"


class Silence(Exception):
    """No data arrived for a second."""


def step(generator: Steps, value: Any, error: BaseException | None) -> Any:
    """Resume a generator with the result or the exception of its call."""
    return generator.send(value) if error is None else generator.throw(error)


def trampoline(outermost: Steps) -> Steps:
    """Run a generator and those that it yields; yield all other values."""
    stack = [outermost]
    value: Any = None
    error: BaseException | None = None
    try:
        while stack:
            try:
                yielded = step(stack[-1], value, error)
            except StopIteration as stop:  # noqa: PERF203 - the purpose of the loop
                stack.pop()
                value, error = stop.value, None
            except BaseException as raised:
                stack.pop()
                value, error = None, raised
                if not stack:
                    raise
            else:
                value = error = None
                if isinstance(yielded, Generator):
                    stack.append(yielded)
                else:
                    value = yield yielded
    finally:
        # After a disconnect: close the generators, the innermost first.
        while stack:
            stack.pop().close()
    return value


def read_piece(environ: WSGIEnvironment) -> Steps:
    """Return the next piece of the body, b"" at the end.

    Raises:
        Silence: none arrived for a second.
    """
    body = environ["awsgi.input"]
    yield environ["awsgi.readable"](body, SILENCE_SECONDS)
    if environ["awsgi.timeout"]:
        raise Silence
    return body.recv(4096)


def read_all(environ: WSGIEnvironment) -> Steps:
    """Return the complete body."""
    pieces: list[bytes] = []
    while True:
        piece = yield read_piece(environ)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def answer(status: str, body: bytes, start_response: Any) -> Steps:
    """Send a complete response."""
    length = str(len(body))
    headers = [("Content-Type", "text/plain"), ("Content-Length", length)]
    start_response(status, headers)
    yield body


def echo(environ: WSGIEnvironment, start_response: Any) -> Steps:
    """Send the body back, or 408."""
    try:
        body = yield read_all(environ)
    except Silence:
        yield answer("408 Request Timeout", SILENCE, start_response)
    else:
        yield answer("200 OK", body, start_response)


def on_trampoline(environ: WSGIEnvironment, start_response: Any) -> Steps:
    """Respond by `echo`."""
    return trampoline(echo(environ, start_response))


app = awsgi.adapt(on_trampoline)
