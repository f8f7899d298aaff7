"""Bytes to events: the requests of one connection, read without any I/O.

Knows where a head ends, what follows it, and all limits. Must never know of
transports, clocks or tasks: it is fed bytes and returns what they mean. Every
verdict depends on the bytes alone, never on how they were split on their way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from .chunked import ChunkedBody
from .head import END, End, Malformed, Refusal, RequestHead
from .known_lines import KnownLines
from .target import check_request_line

__all__ = ["Event", "HeadLimits", "RequestParser"]

Event = RequestHead | bytes | End | Refusal
"""What `RequestParser.feed` reports. The bytes are a piece of a body, never empty."""

_HEAD_END = b"\r\n\r\n"

# RFC 9112 2.2 asks for patience with an empty line before a request line. Some old
# clients send one after each body; nobody has a use for many.
_EMPTY_LINES = 8

_BARE_LF = re.compile(rb"(?<!\r)\n")


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """How much a client may send besides bodies. All but `fields` are in bytes.

    Attributes:
        size: A whole head, with its request line and the empty line at its end.
            Beyond it: 431.
        fields: The number of field lines in a head. Beyond it: 431.
        target: The request target. Beyond it: 414.
        trailers: All trailers of a chunked body together. Beyond it: 431.
        chunk_extensions: All chunk extensions of a body together. Beyond it: 400.
    """

    size: int = 32768
    fields: int = 100
    target: int = 8192
    trailers: int = 8192
    chunk_extensions: int = 4096


_DEFAULT_LIMITS: Final = HeadLimits()
_SHARED_LINES: Final = KnownLines()


class RequestParser:
    """Reads the requests of one connection.

    Keeps at most one incomplete head (`HeadLimits.size`) or one incomplete line of a
    chunked body, and nothing else of a body; and what it was told to leave unread.

    Args:
        limits: What a client may send.
        lines: What reads the heads; by default one for the whole process.

    Attributes:
        has_unread: Whether bytes behind the end of a request were left for another
            `feed`.
    """

    __slots__ = (
        "_body",
        "_keep_alive",
        "_leading",
        "_left",
        "_limits",
        "_line_read",
        "_lines",
        "_pending",
        "_state",
        "_unread",
        "_unread_from",
        "has_unread",
    )

    def __init__(
        self,
        limits: HeadLimits = _DEFAULT_LIMITS,
        lines: KnownLines = _SHARED_LINES,
    ) -> None:
        self._limits = limits
        self._lines = lines
        self._state: Literal["head", "length", "chunked", "closed", "refused"] = "head"
        self._leading = 0  # bytes of empty lines before the request line
        self._pending = b""  # an incomplete head
        self._line_read = False  # whether its request line is complete, and good
        self._keep_alive = True  # what the request whose body is being read asked for
        self._left = 0  # bytes that its body still lacks
        self._body: ChunkedBody | None = None
        self._unread = b""
        self._unread_from = 0  # where in it the next request begins
        self.has_unread = False

    @property
    def idle(self) -> bool:
        """Whether no byte of another request has been seen.

        Empty lines before a request line do not count. Also True behind a request
        that ends the connection; False after a `Refusal`.
        """
        return (
            not self._pending
            and not self.has_unread
            and (self._state == "head" or self._state == "closed")
        )

    def feed(self, data: bytes, one: bool = False) -> list[Event]:
        """Return what these bytes bring, in order.

        For each request: its `RequestHead`; the pieces of its body as non-empty
        bytes; `END`. Several requests may come from one call. What follows a
        request that ends the connection is ignored. A `Refusal` is the last event
        of all, in the midst of a body too: what is fed after it is ignored.

        Bad input never raises. Never parks.

        Args:
            data: what has come; b"" to go on with what was left unread.
            one: whether to stop at the end of a request, and only keep what comes
                behind it. A head takes many times its bytes in memory, so the next
                is better left unread until somebody wants it.
        """
        events: list[Event] = []
        start = 0
        if self.has_unread:
            if not data:
                data, start = self._unread, self._unread_from
            else:
                data = self._unread[self._unread_from :] + data
                if one:
                    self._unread, self._unread_from = data, 0
                    return events
            self._unread = b""
            self.has_unread = False
        try:
            while start < len(data):
                state = self._state
                if state == "head":
                    if one and events:
                        # Only an END can stand before a head.
                        self._unread = data
                        self._unread_from = start
                        self.has_unread = True
                        break
                    start = self._read_head(data, start, events)
                elif state == "length":
                    piece = data[start : start + self._left]
                    start += len(piece)
                    self._left -= len(piece)
                    events.append(piece)
                    if self._left == 0:
                        self._end(events)
                elif self._body is not None:
                    start = self._body.read(data, start, events)
                    if self._body.ended:
                        self._body = None
                        self._end(events)
                else:
                    break
        except Malformed as malformed:
            self.stop()
            events.append(Refusal(malformed.status, malformed.reason))
        return events

    def is_piece(self, data: bytes) -> bool:
        """Feed `data` if all of it is one piece of a body by length, and not its end.

        Returns:
            Whether it was; else it is still to be fed.
        """
        left = self._left - len(data)
        if self._state != "length" or left <= 0 or self.has_unread:
            return False
        self._left = left
        return True

    def stop(self) -> None:
        """Forget what was kept: nothing that comes from now on is read."""
        self._state = "refused"
        self._pending = self._unread = b""
        self.has_unread = False
        self._body = None

    def _end(self, events: list[Event]) -> None:
        events.append(END)
        self._state = "head" if self._keep_alive else "closed"
        self._leading = 0

    def _read_head(self, data: bytes, start: int, events: list[Event]) -> int:
        """Read on in a head from `start`; return where reading stopped."""
        stopped = len(data)
        known = len(self._pending)
        size_limit = self._limits.size
        searched = start
        if known:
            # Here `start` is 0: what is pending is where the last feed stopped. No
            # more than one byte beyond the limit, which is enough to tell.
            data = self._pending + data[: size_limit + 1 - known]
            searched = max(0, known - 3)
        elif self._leading or data[start] < 0x20:
            searched = start = self._skip_empty_lines(data, start)
        end = data.find(_HEAD_END, searched, start + size_limit)
        if end < 0:
            self._pending = data[start : start + size_limit + 1]
            self._check_beginning(self._pending, known)
            return stopped
        head = data[start:end]
        try:
            request = self._lines.read_head(
                head, self._limits.fields, self._limits.target
            )
        except Malformed:
            # Had these bytes come one by one, this might have been said before.
            self._check_beginning(head + _HEAD_END, 0)
            raise
        if known:
            self._pending = b""
        self._line_read = False
        events.append(request)
        self._keep_alive = request.keep_alive
        length = request.content_length
        if length == 0:
            self._end(events)
        elif length is not None:
            self._state = "length"
            self._left = length
        else:
            self._state = "chunked"
            self._body = ChunkedBody(
                self._limits.chunk_extensions, self._limits.trailers
            )
        return end + len(_HEAD_END) - known

    def _skip_empty_lines(self, data: bytes, start: int) -> int:
        while start < len(data) and data[start] == b"\r\n"[self._leading % 2]:
            start += 1
            self._leading += 1
            if self._leading > len(b"\r\n") * _EMPTY_LINES:
                raise Malformed(400, "too many empty lines before a request")
        if start < len(data) and self._leading % 2:
            raise Malformed(400, "CR without LF before a request")
        return start

    def _check_beginning(self, head: bytes, searched: int) -> None:
        """Refuse what no further byte can mend.

        Args:
            head: The head as far as it is known, or all of it.
            searched: How many of its bytes have been through here before.
        """
        size_limit = self._limits.size
        beginning = head[:size_limit]
        if not self._line_read:
            self._line_read = check_request_line(beginning, self._limits.target)
        if _BARE_LF.search(beginning, searched):
            raise Malformed(400, "LF without CR in the head")
        if len(head) > size_limit:
            raise Malformed(431, f"the head is longer than {size_limit} bytes")
