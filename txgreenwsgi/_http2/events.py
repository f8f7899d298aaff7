"""Events of an HTTP/2 connection, in the order in which their frames arrived.

This file contains plain objects. It must never know their use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txgreenwsgi._http.head import Refusal, RequestHead

__all__ = [
    "BodyEnded",
    "DataReceived",
    "Event",
    "Failed",
    "GoneAway",
    "Prioritized",
    "RequestReceived",
    "RequestRefused",
    "StreamReset",
    "WindowOpened",
]


# Not frozen: see `RequestHead`.
@dataclass(slots=True)
class RequestReceived:
    """A request head.

    Attributes:
        stream_id: the stream.
        head: the head; its method is CONNECT only if `protocol` is set.
        ended: whether the request has no body.
        urgency: its urgency, 0 (first) to 7 (RFC 9218 section 4.1).
        protocol: the `:protocol` of an extended CONNECT (RFC 8441); "" otherwise.
    """

    stream_id: int
    head: RequestHead
    ended: bool
    urgency: int
    protocol: str


@dataclass(slots=True)
class RequestRefused:
    """A request that gets a response of the server: it is invalid or exceeds a limit.

    Attributes:
        stream_id: the stream.
        refusal: the status and the reason.
        method: its method; "" if it has none.
        ended: whether the request has no body.
    """

    stream_id: int
    refusal: Refusal
    method: str
    ended: bool


@dataclass(slots=True)
class DataReceived:
    """A part of a request body.

    Attributes:
        stream_id: the stream.
        data: the bytes.
        size: the bytes by which the windows have shrunk: `data` and its padding.
    """

    stream_id: int
    data: bytes
    size: int


@dataclass(slots=True)
class BodyEnded:
    """The end of a request body.

    Attributes:
        stream_id: the stream.
        refusal: why its trailers are invalid; None if they are valid.
    """

    stream_id: int
    refusal: Refusal | None = None


@dataclass(slots=True)
class StreamReset:
    """The end of a stream that was open, by the client or because of its error.

    Attributes:
        stream_id: the stream.
    """

    stream_id: int


@dataclass(slots=True)
class Prioritized:
    """A new urgency of a stream (RFC 9218 section 7.1).

    Attributes:
        stream_id: the stream.
        urgency: 0 (first) to 7.
    """

    stream_id: int
    urgency: int


@dataclass(slots=True)
class WindowOpened:
    """More data may be sent.

    Attributes:
        stream_id: the stream; 0 for the connection.
    """

    stream_id: int


@dataclass(slots=True)
class GoneAway:
    """The client opens no more streams."""


@dataclass(slots=True)
class Failed:
    """The connection must close: the client has violated the protocol or a limit.

    A GOAWAY frame with the error is ready to be sent. No event follows.

    Attributes:
        reason: the reason, for the log.
    """

    reason: str


Event = (
    RequestReceived
    | RequestRefused
    | DataReceived
    | BodyEnded
    | StreamReset
    | Prioritized
    | WindowOpened
    | GoneAway
    | Failed
)
