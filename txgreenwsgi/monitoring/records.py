"""The record of a finished exchange: one request and its response.

It knows names and units. It must never know how records are created or used.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NEEDS", "OUTCOMES", "ExchangeRecord", "Observer", "needs_of"]

#: The values of `ExchangeRecord.outcome`.
OUTCOMES: Final = (
    "finished",  # the transport took the complete response
    "error",  # the application raised, or violated PEP 3333
    "disconnected",  # the client disconnected before the end
    "timeout",  # a deadline expired
    "cancelled",  # the server stopped, or the application cancelled the task
    "refused",  # the application was not called: 400, 413, 503 ...
)


#: The fields of `ExchangeRecord` that are empty unless an observer needs them.
NEEDS: Final = frozenset(["environ", "response_headers", "times"])


def needs_of(observer: Callable[[ExchangeRecord], object]) -> frozenset[str]:
    """Return the fields that an observer needs, of `NEEDS`.

    They are the attribute `needs` of the observer, or of the object whose method it is.
    """
    needs: frozenset[str] = getattr(
        getattr(observer, "__self__", observer), "needs", frozenset()
    )
    return needs & NEEDS


class ExchangeRecord:
    """The record of one finished exchange, for observers.

    A plain class with slots: if there is an observer, the server creates one for each
    request, so construction must be cheap. Treat it as read-only: all observers receive
    the same object.

    Text sent by the client is unchanged, one latin-1 character for each byte. It may
    contain any character that a request head may contain: escape it before output.

    Attributes:
        remote_addr: the client's address; "" on a UNIX socket.
        remote_port: the client's port in decimal digits; "" on a UNIX socket.
        started: the time when the head was complete, in seconds since 1970 (UTC).
        duration: seconds from `started` to the end.
        method: such as "GET"; "" if the head could not be parsed.
        target: the request target as sent, such as "/a?b=c".
        version: such as "HTTP/1.1"; "" if the head could not be parsed.
        status: the status code sent; 0 if no response was sent.
        bytes_sent: the size of the response body sent, without framing.
        request_id: the value of `txgreenwsgi.request_id` in the environ.
        referer: the value of the Referer field; "" without one.
        user_agent: the value of the User-Agent field; "" without one.
        outcome: the outcome, one of `OUTCOMES`.
        blocked: seconds for which this request held up all others, in blocks that
            lasted longer than `--blocked-after`; 0.0 without one.
        queued: seconds for which the request waited for a slot. 0.0 unless an observer
            needs `times`, or a setting such as `slow_after` does.
        waiting: seconds for which the application waited, for a sleep, a socket, a
            lock or the client for instance. 0.0 likewise.
        traceparent: the value of the Traceparent field (W3C Trace Context), as sent; ""
            without one.
        environ: the environ of the request, as the application has left it; without
            an application, the variables of the request's header fields. Empty unless
            an observer needs it (`needs_of`).
        response_headers: pairs of name and value of the response's header fields. Empty
            unless an observer needs it.
        health: whether the request was a health check, answered by the server.
    """

    __slots__ = (
        "blocked",
        "bytes_sent",
        "duration",
        "environ",
        "health",
        "method",
        "outcome",
        "queued",
        "referer",
        "remote_addr",
        "remote_port",
        "request_id",
        "response_headers",
        "started",
        "status",
        "target",
        "traceparent",
        "user_agent",
        "version",
        "waiting",
    )

    def __init__(
        self,
        *,
        remote_addr: str,
        remote_port: str,
        started: float,
        duration: float,
        method: str,
        target: str,
        version: str,
        status: int,
        bytes_sent: int,
        request_id: str,
        referer: str,
        user_agent: str,
        outcome: str,
        blocked: float = 0.0,
        queued: float = 0.0,
        waiting: float = 0.0,
        traceparent: str = "",
        environ: Mapping[str, Any] = MappingProxyType({}),
        response_headers: Sequence[tuple[str, str]] = (),
        health: bool = False,
    ) -> None:
        self.remote_addr = remote_addr
        self.remote_port = remote_port
        self.started = started
        self.duration = duration
        self.method = method
        self.target = target
        self.version = version
        self.status = status
        self.bytes_sent = bytes_sent
        self.request_id = request_id
        self.referer = referer
        self.user_agent = user_agent
        self.outcome = outcome
        self.blocked = blocked
        self.queued = queued
        self.waiting = waiting
        self.traceparent = traceparent
        self.environ = environ
        self.response_headers = response_headers
        self.health = health

    def __repr__(self) -> str:
        """Return the record in one line, for a log or a failed test."""
        return (
            f"<ExchangeRecord {self.request_id} {self.method} {self.target!r} "
            f"{self.status} {self.outcome}>"
        )


Observer: TypeAlias = Callable[[ExchangeRecord], object]
"""A callable that receives the record of each finished exchange.

Called in the reactor greenlet, after the response. It must not park, or modify the
record. An exception is logged. It, or the object whose method it is, may have an
attribute `needs`: a frozenset with some of "environ", "response_headers" and "times",
the fields of records that are empty otherwise.
"""
