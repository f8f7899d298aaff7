"""Where the body of a response ends, and whether the connection may live on.

RFC 9112 section 6. It knows requests and numbers; it must never know
connections.
"""

from __future__ import annotations

__all__ = ["CHUNKED", "CLOSE", "LENGTH", "NONE", "choose_framing", "has_no_body"]

#: No body on the wire, whatever the application gives.
NONE = "none"
#: As many bytes as Content-Length says.
LENGTH = "length"
#: Chunks, and a last chunk.
CHUNKED = "chunked"
#: Until the connection is closed.
CLOSE = "close"


_BODILESS = frozenset({204, 304})


def has_no_body(method: str, code: int) -> bool:
    """Whether a response has no body by its kind (RFC 9112 section 6.3, rule 1)."""
    return method == "HEAD" or code in _BODILESS or code < 200


def choose_framing(method: str, version: str, code: int, length: int | None) -> str:
    """How the end of a response's body is told to the client.

    Args:
        method: the request's.
        version: the request's, "HTTP/1.1" or "HTTP/1.0".
        code: the status code of the response.
        length: how many bytes the body has, when that is known.

    Returns:
        NONE, LENGTH, CHUNKED or CLOSE.
    """
    if method == "HEAD" or code in _BODILESS or code < 200:
        return NONE
    if length is not None:
        return LENGTH
    # A 1.0 client does not know chunks (RFC 9112 section 7.1).
    return CHUNKED if version == "HTTP/1.1" else CLOSE
