"""The WSGI applications that all servers serve.

Plain PEP 3333, to favour no server. This file must import neither a server nor a
framework: their memory would be part of every figure.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs
from wsgiref.util import FileWrapper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Size of the bodies of `generator`, `file` and `upload`.
BULK_BYTES = 256 * 1024 * 1024
BLOCK_BYTES = 64 * 1024
CHUNK_COUNT = 20_000
CHUNK_BYTES = 100
HELLO = b"Hello, world!\n"
AWAKE = b"awake\n"

#: The environment variable with the path of the file that `file` sends.
FILE_VARIABLE = "BENCHMARK_FILE"

_BLOCK = b"x" * BLOCK_BYTES
_CHUNK = b"x" * CHUNK_BYTES

_asleep = 0


def _start(start_response: StartResponse, length: int | None) -> None:
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    start_response("200 OK", headers)


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with one short line."""
    _start(start_response, len(HELLO))
    return [HELLO]


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request body."""
    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    _start(start_response, len(body))
    return [body]


def chunks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Yield many short blocks, without a Content-Length."""
    _start(start_response, None)
    return _repeated(_CHUNK, CHUNK_COUNT)


def generator(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Yield a long body in large blocks."""
    _start(start_response, BULK_BYTES)
    return _repeated(_BLOCK, BULK_BYTES // BLOCK_BYTES)


def _repeated(block: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield block


def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Send a large file through the server's `wsgi.file_wrapper`, if it has one."""
    _start(start_response, BULK_BYTES)
    wrap = environ.get("wsgi.file_wrapper", FileWrapper)
    # The wrapper closes it after the response.
    opened = open(os.environ[FILE_VARIABLE], "rb")  # noqa: SIM115
    wrapped: Iterable[bytes] = wrap(opened, BLOCK_BYTES)
    return wrapped


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the request body in pieces and answer with its size."""
    read = environ["wsgi.input"].read
    left = int(environ["CONTENT_LENGTH"])
    total = 0
    while left:
        piece = read(min(left, BLOCK_BYTES))
        if not piece:
            break
        total += len(piece)
        left -= len(piece)
    body = b"%d\n" % total
    _start(start_response, len(body))
    return [body]


def asleep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Sleep until the Unix time in `?until=`; /count answers how many are asleep.

    All requests wake at the same time, so that on a server which accepts requests
    slowly the first does not wake before the last is asleep. May park.
    """
    global _asleep
    if environ["PATH_INFO"] == "/count":
        body = b"%d\n" % _asleep
    else:
        until = float(parse_qs(environ["QUERY_STRING"])["until"][0])
        # The gevent and eventlet servers patch time.sleep.
        sleep = environ.get("txgreenwsgi.sleep", time.sleep)
        _asleep += 1
        sleep(max(0.0, until - time.time()))
        _asleep -= 1
        body = AWAKE
    _start(start_response, len(body))
    return [body]
