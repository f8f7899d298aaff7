"""The limits and deadlines of one exchange.

They are copied from the settings once and shared by all exchanges;
`Exchange.replace_limits` gives one request an object of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txgreenwsgi.settings import Settings

__all__ = ["Limits", "limits_from"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request. Sizes are in bytes, times in seconds; 0 is no limit.

    Attributes:
        request_seconds: from the end of the head to the end of the exchange.
        queue_seconds: in the admission queue.
        write_seconds: without the client accepting a byte.
        body_bytes: length of the request body.
        body_seconds: without a byte of the body, while the application waits.
        body_rate: bytes of the body per second waited, on average.
        input_window: bytes of the body that are buffered before reading pauses.
        cancel_on_disconnect: whether a lost client interrupts the application.
    """

    request_seconds: float
    queue_seconds: float
    write_seconds: float
    body_bytes: int
    body_seconds: float
    body_rate: int
    input_window: int
    cancel_on_disconnect: bool


def limits_from(settings: Settings) -> Limits:
    """Return the limits that the settings give to every request."""
    return Limits(
        request_seconds=settings.request_timeout,
        queue_seconds=settings.queue_timeout,
        write_seconds=settings.write_timeout,
        body_bytes=settings.max_body,
        body_seconds=settings.body_timeout,
        body_rate=settings.min_body_rate,
        input_window=settings.input_window,
        cancel_on_disconnect=settings.on_disconnect == "cancel",
    )
