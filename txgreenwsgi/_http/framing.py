"""How the end of a response body is delimited on the wire (RFC 9112 section 6).

This file knows methods, versions and status codes. It must never know connections.
"""

from __future__ import annotations

__all__ = ["CHUNKED", "CLOSE", "LENGTH", "NONE", "choose_framing", "has_no_body"]

#: No body on the wire, whatever the application yields.
NONE = "none"
#: As many bytes as Content-Length tells.
LENGTH = "length"
#: Chunks, and a last chunk.
CHUNKED = "chunked"
#: Until the connection is closed.
CLOSE = "close"

_BODILESS = frozenset({204, 304})


def has_no_body(method: str, code: int) -> bool:
    """Return whether a response has no body (RFC 9112 section 6.3, rule 1)."""
    return method == "HEAD" or code in _BODILESS or code < 200


def choose_framing(method: str, version: str, code: int, length: int | None) -> str:
    """Return how the end of a response body is delimited.

    Args:
        method: the request's.
        version: the request's, "HTTP/1.1" or "HTTP/1.0".
        code: the status code of the response.
        length: the length of the body in bytes, if it is known.

    Returns:
        NONE, LENGTH, CHUNKED or CLOSE.
    """
    if method == "HEAD" or code in _BODILESS or code < 200:
        return NONE
    if length is not None:
        return LENGTH
    # HTTP/1.0 has no chunked coding (RFC 9112 section 7.1).
    return CHUNKED if version == "HTTP/1.1" else CLOSE
