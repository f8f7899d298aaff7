"""What is known of a finished exchange: one request and its response.

This file knows names and units. It must never know who makes a record or who
reads it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["OUTCOMES", "ExchangeRecord"]

#: The ways in which an exchange can end; `ExchangeRecord.outcome` is one of
#: them.
OUTCOMES: Final = (
    "finished",  # the response was handed to the transport whole
    "error",  # the application raised, or broke a rule of PEP 3333
    "disconnected",  # the client went away before the end
    "timeout",  # a deadline ended it
    "cancelled",  # it was told to end: a stop of the server, or by hand
    "refused",  # it never reached the application: 400, 413, 503 ...
)


class ExchangeRecord:
    """One finished exchange, as observers are told of it.

    A plain class with slots: one is made for each request while an observer
    listens, and that must stay cheap. Treat it as read-only: every observer is
    given the same one.

    Text that came from the client is as it was sent, byte for character
    (latin-1). It may hold anything that a head may hold: escape it before it
    is written anywhere.

    Attributes:
        remote_addr: The client's address, "" on a UNIX socket.
        remote_port: The client's port in decimal digits, "" on a UNIX socket.
        started: When the head was complete, in seconds since 1970 (UTC).
        duration: Seconds from there to the end.
        method: "GET"; "" when the head could not be read.
        target: The request target as it was sent: "/a?b=c".
        version: "HTTP/1.1" or "HTTP/1.0"; "" when the head could not be read.
        status: The status code that was sent, 0 when nothing was sent.
        bytes_sent: Bytes of the response body, without framing.
        request_id: The request's identity, as `txgreenwsgi.request_id` has it.
        referer: Value of the Referer field, "" without one.
        user_agent: Value of the User-Agent field, "" without one.
        outcome: How it ended: one of `OUTCOMES`.
    """

    __slots__ = (
        "bytes_sent",
        "duration",
        "method",
        "outcome",
        "referer",
        "remote_addr",
        "remote_port",
        "request_id",
        "started",
        "status",
        "target",
        "user_agent",
        "version",
    )

    def __init__(
        self,
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

    def __repr__(self) -> str:
        """The record in one line, for a log or a failed test."""
        return (
            f"<ExchangeRecord {self.request_id} {self.method} {self.target!r} "
            f"{self.status} {self.outcome}>"
        )
