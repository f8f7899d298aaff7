"""What every demonstration needs: bounded numbers in, small responses out.

It knows PEP 3333 and JSON, and must never wait.
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
    """A request that is answered with an error, and with a sentence that says why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def query_value(environ: WSGIEnvironment, name: str) -> str:
    """Give the first value of a query field, or an empty string.

    Raises:
        Refused: 400 if there are more fields than anything here asks for.
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
    """Give a number from the query, within its bounds.

    Raises:
        Refused: 400 if it is not a number between `low` and `high`.
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
    """Start a response that no cache keeps and no proxy holds back."""
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
    """Give a value as one line of JSON, the unit of our streamed responses."""
    return json.dumps(value).encode("ascii") + b"\n"


def send_json(
    start_response: StartResponse,
    value: object,
    status: HTTPStatus = HTTPStatus.OK,
    *fields: tuple[str, str],
) -> Iterable[bytes]:
    """Answer with one JSON value."""
    begin(start_response, "application/json", status, *fields)
    return [json_line(value)]
