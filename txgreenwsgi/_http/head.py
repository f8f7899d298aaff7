"""Events reported by the parser: request head, end of body, refusal.

Knows the terms of RFC 9110 and the CGI variables of RFC 3875. Must never know how
these objects are parsed or used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from txgreenwsgi._native import lanes

__all__ = ["END", "End", "Malformed", "Refusal", "RequestHead"]


# Not frozen: a frozen dataclass sets each field through object.__setattr__, which
# triples the cost of the one object that is created for every request.
@lanes.with_lanes
@dataclass
class RequestHead(lanes.RequestHeadState):
    """A validated request line and its header fields.

    All text is latin-1, one character per byte received, as PEP 3333 requires ("A
    Note On String Types").

    Attributes:
        method: The method, such as ``GET``; case-sensitive (RFC 9110 9.1).
        target: The request target as received (RFC 9112 3.2).
        path: The percent-decoded path, such as ``/a b``: PATH_INFO of an application
            mounted at the root. Begins with a slash, except for ``OPTIONS *`` where
            it is ``*``. A percent sign without two hexadecimal digits is kept.
        query: The part of the target after the first ``?``, not decoded; ``""`` if
            there is none.
        version: ``HTTP/1.1`` or ``HTTP/1.0``.
        variables: The fields under their names of RFC 3875 4.1.18: ``HTTP_ACCEPT``,
            and ``CONTENT_TYPE`` and ``CONTENT_LENGTH`` without the prefix. Repeated
            fields are joined with ``", "``, Cookie with ``"; "``. The dict belongs to
            this request; the receiver may modify it.
        content_length: The body's length in bytes; 0 without a body; None for a
            chunked body, whose length is known only at its end.
        keep_alive: True if the client wants a persistent connection (RFC 9112 9.3).
        expects_continue: True if the client waits for ``100 Continue`` before it
            sends the body (RFC 9110 10.1.1).
        upgrade: The value of Upgrade if Connection lists it, else ``""``. Ignoring it
            is always allowed (RFC 9110 7.8).
    """

    # Not `slots=True`: the attributes may be those of the state class.
    __slots__ = lanes.slots(
        lanes.RequestHeadState,
        (
            "content_length",
            "expects_continue",
            "keep_alive",
            "method",
            "path",
            "query",
            "target",
            "upgrade",
            "variables",
            "version",
        ),
    )

    method: str
    target: bytes
    path: str
    query: str
    version: str
    variables: dict[str, str]
    content_length: int | None
    keep_alive: bool
    expects_continue: bool
    upgrade: str


@final
class End:
    """The type of `END`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END: Final = End()
"""End of a request's body; reported for requests without a body as well."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The bytes received cannot be served as a request.

    Answer with `status` and close the connection: the message boundaries after the
    error are unreliable (RFC 9112 11.2), so the parser reports nothing after it.

    Attributes:
        status: The status code to answer with, such as 400.
        reason: The reason, for the log and the response. Contains no data from the
            client except field names and single bytes in hexadecimal.
    """

    status: int
    reason: str


class Malformed(Exception):
    """Raised by the functions of this package; the parser reports it as a `Refusal`.

    Attributes:
        status: The status code to answer with.
        reason: See `Refusal`.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
