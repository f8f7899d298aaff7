"""Demonstration: an upload counted as it arrives, and a second request that follows it.

The two requests share an ordinary dict, without a lock: they run on one thread, and
each runs only while the other waits. It knows `wsgi.input` and `sleep`. It must never
store a byte of the upload.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from txgreenwsgi import sleep

from .answers import Refused, begin, json_line, query_value, send_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_BYTES = 32 * 1024 * 1024
MAX_UPLOADS = 100
BLOCK_BYTES = 64 * 1024
# A local upload would end before a request could follow it, so the first part is read
# slowly. This also shows the backpressure on the client: memory use does not grow.
PAUSE_SECONDS = 0.02
SLOW_BYTES = 4 * 1024 * 1024
STEP_SECONDS = 0.05
START_TIMEOUT_SECONDS = 5.0

_counts: dict[str, int] = {}


def _key(environ: WSGIEnvironment) -> str:
    key = query_value(environ, "key")
    if not re.fullmatch("[0-9a-f]{8,64}", key):
        raise Refused(
            HTTPStatus.BAD_REQUEST, "key: give 8 to 64 of the characters 0-9 and a-f"
        )
    return key


def receive(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count the body, under `?key=`, while it arrives; respond with the total. Parks.

    Raises:
        Refused: 400 for an invalid key, 409 for a key in use, 413 for a body that
            is too large, 503 while there are too many uploads.
    """
    key = _key(environ)
    if key in _counts:
        raise Refused(HTTPStatus.CONFLICT, "an upload with this key is in progress")
    if len(_counts) >= MAX_UPLOADS:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{MAX_UPLOADS} uploads are in progress: try again later",
        )
    _counts[key] = 0
    try:
        # Reject a body with a too large Content-Length without reading it.
        _refuse_above_limit(int(environ.get("CONTENT_LENGTH") or 0))
        while block := environ["wsgi.input"].read(BLOCK_BYTES):
            _counts[key] += len(block)
            _refuse_above_limit(_counts[key])
            if _counts[key] <= SLOW_BYTES:
                sleep(PAUSE_SECONDS)
        return send_json(start_response, {"counted": _counts[key]})
    finally:
        del _counts[key]


def _refuse_above_limit(size: int) -> None:
    if size > MAX_BYTES:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"send at most {MAX_BYTES // 1024 // 1024} MiB",
        )


def follow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Stream the progress of the upload `?key=` until it ends. Parks.

    Raises:
        Refused: 400 for an invalid key.
    """
    key = _key(environ)
    begin(start_response, "application/x-ndjson")
    return _count_lines(key)


def _count_lines(key: str) -> Iterator[bytes]:
    remaining = START_TIMEOUT_SECONDS
    while key not in _counts and remaining > 0:
        sleep(STEP_SECONDS)
        remaining -= STEP_SECONDS
    sent = -1
    while (counted := _counts.get(key)) is not None:
        if counted != sent:
            sent = counted
            yield json_line({"counted": counted})
        sleep(STEP_SECONDS)
