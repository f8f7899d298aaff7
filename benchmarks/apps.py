"""The WSGI applications that every server is measured with.

Plain PEP 3333, so that no server is favoured. The file must import neither a
server nor a framework: what they cost would be in every figure of memory.
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

#: Length of what is generated, sent from a file, and uploaded.
BULK_BYTES = 256 * 1024 * 1024
BLOCK_BYTES = 64 * 1024
CHUNK_COUNT = 20_000
CHUNK_BYTES = 100
HELLO = b"Hello, world!\n"
AWAKE = b"awake\n"

#: The environment variable that tells `file` which file to send.
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
    """One short line."""
    _start(start_response, len(HELLO))
    return [HELLO]


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """What was posted."""
    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    _start(start_response, len(body))
    return [body]


def chunks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Many short blocks, of no announced length."""
    _start(start_response, None)
    return _repeated(_CHUNK, CHUNK_COUNT)


def generator(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Much, in long blocks."""
    _start(start_response, BULK_BYTES)
    return _repeated(_BLOCK, BULK_BYTES // BLOCK_BYTES)


def _repeated(block: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield block


def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Much, from a file, by the server's file wrapper if it has one."""
    _start(start_response, BULK_BYTES)
    wrap = environ.get("wsgi.file_wrapper", FileWrapper)
    # Whoever wraps it closes it, when the response is over.
    opened = open(os.environ[FILE_VARIABLE], "rb")  # noqa: SIM115
    wrapped: Iterable[bytes] = wrap(opened, BLOCK_BYTES)
    return wrapped


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """How many bytes were posted, read in pieces."""
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
    """Sleep until the Unix time in `?until=`; /count tells how many are asleep.

    One instant for all, so that a server which is slow to take requests does not
    have the first awake before the last is asleep. May park.
    """
    global _asleep
    if environ["PATH_INFO"] == "/count":
        body = b"%d\n" % _asleep
    else:
        until = float(parse_qs(environ["QUERY_STRING"])["until"][0])
        # The gevent and eventlet servers replace time.sleep by their own.
        sleep = environ.get("txgreenwsgi.sleep", time.sleep)
        _asleep += 1
        sleep(max(0.0, until - time.time()))
        _asleep -= 1
        body = AWAKE
    _start(start_response, len(body))
    return [body]
