"""An upload that is counted as it arrives, and a second request that watches it.

The two requests share an ordinary dict: they run on one thread, and only a wait
lets the other go on. It knows `wsgi.input` and `sleep`; it must never keep a byte
of what is sent.
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

MOST_BYTES = 32 * 1024 * 1024
MOST_UPLOADS = 100
BLOCK_BYTES = 64 * 1024
# On one machine an upload is over before it can be watched, so we begin slowly.
# That also shows that the client has to wait for us: nothing piles up in memory.
PAUSE_SECONDS = 0.02
SLOW_BYTES = 4 * 1024 * 1024
STEP_SECONDS = 0.05
PATIENCE_SECONDS = 5.0

_counts: dict[str, int] = {}


def _key(environ: WSGIEnvironment) -> str:
    key = query_value(environ, "key")
    if not re.fullmatch("[0-9a-f]{8,64}", key):
        raise Refused(
            HTTPStatus.BAD_REQUEST, "key: give 8 to 64 of the characters 0-9 and a-f"
        )
    return key


def receive(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Count the body, under `?key=`, while it arrives; answer with the total. Parks.

    Raises:
        Refused: 400 for a bad key, 409 for one in use, 413 for a body that is
            too large, 503 while too many uploads are being counted.
    """
    key = _key(environ)
    if key in _counts:
        raise Refused(HTTPStatus.CONFLICT, "an upload with this key is under way")
    if len(_counts) >= MOST_UPLOADS:
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{MOST_UPLOADS} uploads are under way already: try again in a moment",
        )
    _counts[key] = 0
    try:
        # A body that says beforehand that it is too large is not read at all.
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
    if size > MOST_BYTES:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"send at most {MOST_BYTES // 1024 // 1024} MiB",
        )


def follow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Tell what has been counted of the upload `?key=`, until it ends. Parks.

    Raises:
        Refused: 400 for a bad key.
    """
    key = _key(environ)
    begin(start_response, "application/x-ndjson")
    return _count_lines(key)


def _count_lines(key: str) -> Iterator[bytes]:
    patience = PATIENCE_SECONDS
    while key not in _counts and patience > 0:
        sleep(STEP_SECONDS)
        patience -= STEP_SECONDS
    told = -1
    while (counted := _counts.get(key)) is not None:
        if counted != told:
            told = counted
            yield json_line({"counted": counted})
        sleep(STEP_SECONDS)
