"""Framings: the delimiters of response bodies (RFC 9112 section 6).

`Connection.send_head` in `h1.py` chooses one for each response. This file contains
constants; it must never know a connection.
"""

from __future__ import annotations

__all__ = [
    "BODILESS_CODES",
    "CHUNKED",
    "CLOSE",
    "LENGTH",
    "NONE",
]

#: No body on the wire, whatever the application yields.
NONE = "none"
#: Content-Length bytes.
LENGTH = "length"
#: Chunked transfer coding.
CHUNKED = "chunked"
#: The close of the connection ends the body.
CLOSE = "close"

#: Final status codes whose responses have no body (RFC 9112 section 6.3, rule 1).
BODILESS_CODES = frozenset({204, 304})
