"""The Traceparent field of a request (W3C Trace Context, section 3.2).

It knows the syntax of the field. It must never know a tracer.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["trace_id_of"]

# Version ff is invalid; later versions may have more fields at the end.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})"
    r"-[0-9a-f]{2}(?P<more>-.*)?\Z"
)
_NO_TRACE: Final = "0" * 32
_NO_PARENT: Final = "0" * 16


def trace_id_of(traceparent: str) -> str:
    """Return the id of the trace to which a request belongs.

    Args:
        traceparent: the value of the field, as sent.

    Returns:
        32 hexadecimal digits; "" if the value is empty or invalid.
    """
    found = _TRACEPARENT.match(traceparent)
    if found is None or found["trace"] == _NO_TRACE or found["parent"] == _NO_PARENT:
        return ""
    if found["version"] == "00" and found["more"]:
        return ""
    return found["trace"]
