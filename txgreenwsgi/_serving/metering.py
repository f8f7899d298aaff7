"""The interface of metrics: what is called for each request, if metrics are wanted.

It must never know how requests are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from txgreenwsgi._native import lanes

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from txgreenwsgi._websocket.stream import MessageCounts

    class _Head(Protocol):
        @property
        def method(self) -> str: ...

    class _Numbers(Protocol):
        def __setitem__(self, place: int, number: float, /) -> None: ...

    class _Body(Protocol):
        @property
        def received_bytes(self) -> int: ...


__all__ = ["FAST_SECONDS", "ORDINARY", "Metered", "RequestMetrics"]

#: A request below this duration is fast.
FAST_SECONDS: Final = 0.001

lanes.lend(fast_seconds=FAST_SECONDS)

#: The place of the number of ordinary requests in `RequestMetrics.values`.
ORDINARY: Final = 0


class Metered(Protocol):
    """The interface of an exchange that metrics use.

    Attributes:
        outcome: the outcome so far.
        code: the status code that was sent; 0 before.
        bytes_sent: the length of the response body sent so far.
        started: reactor time at which the head was complete.
    """

    outcome: str
    code: int
    bytes_sent: int
    started: float

    @property
    def task(self) -> Hashable | None:
        """The task of the application; None if it was not called."""

    @property
    def head(self) -> _Head:
        """The request head."""

    @property
    def body(self) -> _Body:
        """The request body."""

    @property
    def is_upgraded(self) -> bool:
        """Whether the connection was switched to another protocol."""


class RequestMetrics(Protocol):
    """Counters of requests. Nothing of it may park or raise.

    An *ordinary* request is a fast GET request without a body, whose response has the
    status 200 and consists of one block. Its server counts it in these attributes,
    because a call would cost as much again; all others by a call.

    Attributes:
        ordinary: the number of ordinary requests.
        seconds: their duration since it was last published.
        sent: the size of their responses since then, in bytes.
        values: the number of ordinary requests is written here too, at `ORDINARY`.
    """

    ordinary: float
    seconds: float
    sent: int

    @property
    def values(self) -> _Numbers: ...

    @property
    def first_bytes(self) -> Mapping[Metered, float]:
        """When responses began whose requests have not ended."""

    @property
    def messages(self) -> MessageCounts:
        """The counters of the messages of WebSockets."""

    def begun(self, exchange: Metered) -> None:
        """Note that a response begins. May be called again for the same response.

        Not called for a response whose only block ends the request, so that its first
        byte and its end coincide.
        """

    def ended(self, exchange: Metered) -> None:
        """Count a request that has ended, in the reactor greenlet."""

    def refused(self, code: int, bytes_sent: int) -> None:
        """Count a request whose head could not be parsed.

        Args:
            code: the status of the response.
            bytes_sent: the length of its body.
        """
