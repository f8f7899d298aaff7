"""What the parser reports: a request's head, the end of its body, a refusal.

Knows the words of RFC 9110 and the CGI variables of RFC 3875. Must never know
how bytes become these objects, nor what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

__all__ = ["END", "End", "Malformed", "Refusal", "RequestHead"]


# Not frozen: a frozen dataclass sets each field through object.__setattr__,
# which triples the cost of the one object that is made for every request.
@dataclass(slots=True)
class RequestHead:
    """One request's request line and fields, checked and read.

    All text is latin-1: one character for each byte that was sent, as PEP 3333
    wants it ("A Note On String Types").

    Attributes:
        method: The method, such as ``GET``. Case matters (RFC 9110 9.1).
        target: The request target as it was sent (RFC 9112 3.2).
        path: The percent-decoded path, PATH_INFO of an application at the root:
            ``/a b``. It begins with a slash, except for ``OPTIONS *`` where it
            is ``*``. A percent sign without two hexadecimal digits stays as it is.
        query: What follows the first ``?`` of the target, not decoded; ``""`` if
            there is none.
        version: ``HTTP/1.1`` or ``HTTP/1.0``.
        variables: The fields as RFC 3875 4.1.18 names them: ``HTTP_ACCEPT``, and
            ``CONTENT_TYPE`` and ``CONTENT_LENGTH`` without the prefix. Several
            fields of one name are joined with ``", "``, Cookie with ``"; "``.
            The dict is this request's own: the receiver may add to it.
        content_length: The body's length in bytes, 0 if there is no body, None if
            it is chunked and so known only at its end.
        keep_alive: Whether the client wants the connection to outlive this request
            (RFC 9112 9.3).
        expects_continue: Whether the client waits for ``100 Continue`` before it
            sends a body (RFC 9110 10.1.1).
        upgrade: The value of Upgrade where Connection lists it, else ``""``. The
            request can always be answered as if it were not there (RFC 9110 7.8).
    """

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
"""The end of one request's body; also where there is no body."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """These bytes are no request that may be answered with anything else.

    Answer with `status` and close: nothing that follows on the connection can be
    trusted to be what it looks like (RFC 9112 11.2), so nothing of it is reported.

    Attributes:
        status: The status to answer with, such as 400.
        reason: Why, for the log. Holds nothing that the client sent beyond the
            name of a field or single bytes in hexadecimal.
    """

    status: int
    reason: str


class Malformed(Exception):
    """Raised inside this room where a `Refusal` must be reported."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
