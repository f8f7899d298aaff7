"""Responses of the server's own: refusals, timeouts, failures of the application."""

from __future__ import annotations

from txgreenwsgi._http.writer import ResponseHead

__all__ = ["plain_response"]


def plain_response(
    status: str, text: str, retry_after: int = 0
) -> tuple[ResponseHead, bytes]:
    """Return the head and the body of a response in plain text.

    Args:
        status: such as "503 Service Unavailable".
        text: the body; a newline is added if it has none at its end.
        retry_after: seconds for a Retry-After field; 0 for no such field.
    """
    body = (text.rstrip("\n") + "\n").encode("utf-8", "replace")
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
    ]
    if retry_after:
        fields.append(("Retry-After", str(retry_after)))
    return ResponseHead(status, fields), body
