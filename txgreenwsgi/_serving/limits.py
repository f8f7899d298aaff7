"""The limits and deadlines of one exchange.

They are copied from the settings once and shared by all exchanges;
`Exchange.replace_limits` gives one request an object of its own. This file knows the
settings. It must never know how a limit is enforced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .health import HealthPaths
from .proxies import TrustedProxies

if TYPE_CHECKING:
    from txgreenwsgi.settings import Settings

__all__ = ["Limits", "limits_from"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request. Sizes are in bytes, times in seconds; 0 is no limit.

    Attributes:
        request_seconds: time from the end of the head to the end of the exchange.
        queue_seconds: time in the admission queue.
        write_seconds: time in which the client accepts no byte.
        body_bytes: length of the request body.
        body_seconds: time without a byte of the body, while the application waits.
        body_rate: minimum average of body bytes per second waited.
        input_window: bytes of the body that are buffered before reading pauses.
        cancel_on_disconnect: whether a disconnect interrupts the application.
        methods: methods that reach the application; empty for all.
        proxies: the trusted proxies; None if forwarded fields are passed on as they
            are.
        health: the paths of health checks; None without them.
        examines_heads: whether `methods`, `proxies` or `health` are set.
    """

    request_seconds: float
    queue_seconds: float
    write_seconds: float
    body_bytes: int
    body_seconds: float
    body_rate: int
    input_window: int
    cancel_on_disconnect: bool
    methods: tuple[str, ...] = ()
    proxies: TrustedProxies | None = None
    health: HealthPaths | None = None
    examines_heads: bool = field(init=False)

    def __post_init__(self) -> None:
        """Set `examines_heads`."""
        examines = bool(self.methods or self.proxies or self.health)
        # The only way to set a field of a frozen dataclass.
        object.__setattr__(self, "examines_heads", examines)


def limits_from(settings: Settings) -> Limits:
    """Return the default limits of a request."""
    return Limits(
        request_seconds=settings.request_timeout,
        queue_seconds=settings.queue_timeout,
        write_seconds=settings.write_timeout,
        body_bytes=settings.max_body,
        body_seconds=settings.body_timeout,
        body_rate=settings.min_body_rate,
        input_window=settings.input_window,
        cancel_on_disconnect=settings.on_disconnect == "cancel",
        methods=settings.methods,
        proxies=TrustedProxies(
            settings.trusted_proxy,
            settings.trusted_proxy_count,
            settings.trusted_proxy_headers,
        )
        if settings.trusted_proxy
        else None,
        health=HealthPaths(settings.health_path) if settings.health_path else None,
    )
