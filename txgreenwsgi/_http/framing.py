"""Framings: how the end of a response body is delimited (RFC 9112 section 6).

`Connection.send_head` in `h1.py` chooses one for each response.
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
#: As many bytes as Content-Length tells.
LENGTH = "length"
#: Chunks, and a last chunk.
CHUNKED = "chunked"
#: Until the connection is closed.
CLOSE = "close"

#: Final status codes whose responses have no body (RFC 9112 section 6.3, rule 1).
BODILESS_CODES = frozenset({204, 304})
