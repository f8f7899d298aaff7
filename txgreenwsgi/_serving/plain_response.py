"""Plain-text responses of the server: rejections, timeouts, application failures.

This file must never know the cause or the transport.
"""

from __future__ import annotations

from txgreenwsgi._http.writer import ResponseHead

__all__ = ["plain_response"]


def plain_response(
    status: str,
    text: str,
    retry_after: int = 0,
    allow: str = "",
    no_store: bool = False,
) -> tuple[ResponseHead, bytes]:
    """Return the head and the body of a plain-text response.

    Args:
        status: the status line, such as "503 Service Unavailable".
        text: the body; a missing final newline is added.
        retry_after: seconds for the Retry-After field; 0 to omit it.
        allow: methods for the Allow field; "" to omit it.
        no_store: whether caches must not store it.
    """
    body = (text.rstrip("\n") + "\n").encode("utf-8", "replace")
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
    ]
    if retry_after:
        fields.append(("Retry-After", str(retry_after)))
    if allow:
        fields.append(("Allow", allow))
    if no_store:
        fields.append(("Cache-Control", "no-store"))
    return ResponseHead(status, fields), body
