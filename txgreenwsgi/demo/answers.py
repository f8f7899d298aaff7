"""Parsing of bounded query parameters, and small responses.

It knows PEP 3333 and JSON. It must never park.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Refused(Exception):
    """A request that gets an error response with a reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def query_value(environ: WSGIEnvironment, name: str) -> str:
    """Return the first value of a query field, "" without one.

    Raises:
        Refused: 400 if there are more than 10 fields.
    """
    query: str = environ.get("QUERY_STRING", "")
    try:
        fields = parse_qs(query, max_num_fields=10)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "give at most 10 fields") from None
    return fields.get(name, [""])[0]


def query_number(
    environ: WSGIEnvironment, name: str, default: float, low: float, high: float
) -> float:
    """Return a number from the query.

    Raises:
        Refused: 400 unless it is a number from `low` to `high`.
    """
    text = query_value(environ, name)
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:  # also true of NaN
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"{name}={text[:40]}: give a number from {low:g} to {high:g}",
        )
    return number


def begin(
    start_response: StartResponse,
    content_type: str,
    status: HTTPStatus = HTTPStatus.OK,
    *fields: tuple[str, str],
) -> None:
    """Start a response that caches do not store and proxies do not buffer."""
    start_response(
        f"{status.value} {status.phrase}",
        [
            ("Content-Type", content_type),
            ("Cache-Control", "no-store"),
            ("X-Accel-Buffering", "no"),
            ("X-Content-Type-Options", "nosniff"),
            *fields,
        ],
    )


def json_line(value: object) -> bytes:
    """Return a value as one line of JSON, the unit of streamed responses."""
    return json.dumps(value).encode("ascii") + b"\n"


def send_json(
    start_response: StartResponse,
    value: object,
    status: HTTPStatus = HTTPStatus.OK,
    *fields: tuple[str, str],
) -> Iterable[bytes]:
    """Respond with one JSON value."""
    begin(start_response, "application/json", status, *fields)
    return [json_line(value)]
