"""The defaults of `websocket()`, apart from the code that few processes need.

It must never know the code that uses them.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_MESSAGE", "PING_SECONDS", "SAME_ORIGIN"]

#: The value of `origins` that accepts the origin of the request's own host only.
SAME_ORIGIN: Final = "same"

#: Largest message in bytes.
MAX_MESSAGE: Final = 1024 * 1024

#: Interval of pings, in seconds: below the idle timeouts of common proxies.
PING_SECONDS: Final = 25.0
