"""Parser for the requests of one connection: bytes to events, without I/O.

Knows the end of heads and bodies, and all limits. Must never know transports, clocks
or tasks. Every result depends on the bytes alone, never on how they were split into
reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from txgreenwsgi._native import lanes
from txgreenwsgi._states import TransitionTable

from .chunked import ChunkedBody
from .head import END, End, Malformed, Refusal, RequestHead
from .known_lines import KnownLines
from .target import check_request_line

__all__ = [
    "CHUNKED_BODY",
    "ENDED",
    "HEAD",
    "LENGTH_BODY",
    "RECEIVING",
    "REFUSED",
    "Event",
    "HeadLimits",
    "RequestParser",
]

Event = RequestHead | bytes | End | Refusal
"""An event of `RequestParser.feed`. Bytes are a non-empty piece of a body."""

#: The next bytes begin or continue a request head.
HEAD: Final = "head"
#: The next bytes are a body with a Content-Length.
LENGTH_BODY: Final = "length body"
#: The next bytes are a chunked body.
CHUNKED_BODY: Final = "chunked body"
#: The last request ended the connection: further bytes are ignored.
ENDED: Final = "ended"
#: A `Refusal` was reported, or `stop` called: further bytes are ignored.
REFUSED: Final = "refused"

RECEIVING: Final = TransitionTable(
    "the request side of an HTTP/1.1 connection",
    {
        HEAD: {
            "length": LENGTH_BODY,
            "chunked": CHUNKED_BODY,
            "end": HEAD,
            "last end": ENDED,
            "stop": REFUSED,
        },
        LENGTH_BODY: {"end": HEAD, "last end": ENDED, "stop": REFUSED},
        CHUNKED_BODY: {"end": HEAD, "last end": ENDED, "stop": REFUSED},
        ENDED: {"stop": REFUSED},
        REFUSED: {"stop": REFUSED},
    },
)

_ON_LENGTH: Final = RECEIVING.moves("length")
_ON_CHUNKED: Final = RECEIVING.moves("chunked")
_ON_END: Final = RECEIVING.moves("end")
_ON_LAST_END: Final = RECEIVING.moves("last end")
_ON_STOP: Final = RECEIVING.moves("stop")

_HEAD_END = b"\r\n\r\n"

# RFC 9112 section 2.2: a server should ignore an empty line before a request line.
# Some old clients send one after each body; there is no reason to send more.
EMPTY_LINES_LIMIT = 8

_BARE_LF = re.compile(rb"(?<!\r)\n")


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Limits on requests, except on bodies. All but `fields` are in bytes.

    Attributes:
        size: size of a head, with request line and final empty line; above: 431.
        fields: number of field lines in a head; above: 431.
        target: length of the request target; above: 414.
        trailers: total size of the trailers of a chunked body; above: 431.
        chunk_extensions: total size of the chunk extensions of a body; above: 400.
    """

    size: int = 32768
    fields: int = 100
    target: int = 8192
    trailers: int = 8192
    chunk_extensions: int = 4096


_DEFAULT_LIMITS: Final = HeadLimits()
_SHARED_LINES: Final = KnownLines()


class RequestParser(lanes.ConnectionState):
    """Incremental parser for the requests of one connection.

    Buffers at most one incomplete head (`HeadLimits.size`) or one incomplete line of
    a chunked body, no other part of a body, and the bytes left unread by `one=True`.

    Args:
        limits: the limits on requests.
        lines: the parser of heads; by default one cache for the whole process.

    Attributes:
        has_unread: whether bytes after the end of a request, or of its chunked body,
            are left for another `feed`.
        pending: the received part of an incomplete head.
        receiving: one of the states of `RECEIVING`.
    """

    __slots__ = lanes.slots(
        lanes.ConnectionState,
        (
            "_body",
            "_keep_alive",
            "_leading",
            "_left",
            "_limits",
            "_line_read",
            "_lines",
            "_unread",
            "_unread_from",
            "has_unread",
            "pending",
            "receiving",
        ),
    )

    def __init__(
        self,
        limits: HeadLimits = _DEFAULT_LIMITS,
        lines: KnownLines = _SHARED_LINES,
    ) -> None:
        self._limits = limits
        self._lines = lines
        self.receiving = HEAD
        self._leading = 0  # bytes of empty lines before the request line
        self.pending = b""
        self._line_read = False  # whether the request line is complete and valid
        self._keep_alive = True  # of the request whose body is being read
        self._left = 0  # bytes still missing from its body
        self._body: ChunkedBody | None = None
        self._unread = b""
        self._unread_from = 0  # index of the next request in it
        self.has_unread = False

    @property
    def idle(self) -> bool:
        """Whether no byte of a further request was received.

        Empty lines before a request line do not count. True after a request that
        ends the connection; False after a `Refusal`.
        """
        return (
            not self.pending
            and not self.has_unread
            and (self.receiving is HEAD or self.receiving is ENDED)
        )

    def feed(self, data: bytes, one: bool = False) -> list[Event]:
        """Return the events of these bytes, in order.

        For each request: its `RequestHead`; the pieces of its body as non-empty
        bytes; `END`. One call may return several requests. Bytes after a request
        that ends the connection are ignored. A `Refusal`, possibly within a body, is
        the last event of a connection: bytes fed after it are ignored.

        Invalid input never raises. Never parks.

        Args:
            data: the received bytes; b"" to continue with bytes left unread.
            one: whether to stop at the end of a request, or after many small chunks
                (`MAX_CHUNKS`), and leave the bytes after it unread. A parsed head
                takes many times its bytes in memory, so the next one is parsed when
                it is needed; small chunks take many times as long as their bytes.
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
                state = self.receiving
                if state is HEAD:
                    if one and events:
                        # Only an END can precede a head.
                        self._unread = data
                        self._unread_from = start
                        self.has_unread = True
                        break
                    start = self._read_head(data, start, events)
                elif state is LENGTH_BODY:
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
                    elif one and start < len(data):
                        self._unread = data
                        self._unread_from = start
                        self.has_unread = True
                        break
                else:
                    break
        except Malformed as malformed:
            self.stop()
            events.append(Refusal(malformed.status, malformed.reason))
        return events

    def hold(self) -> None:
        """Leave the bytes after the current request unread: it may switch protocols.

        Until the next `feed` without data. Call between two requests.
        """
        self.has_unread = True

    def take_unread(self) -> bytes:
        """Return the bytes left unread, and ignore all that follow."""
        unread = self._unread[self._unread_from :]
        self.stop()
        return unread

    def is_piece(self, data: bytes) -> bool:
        """Consume `data` if it is a piece of a Content-Length body, but not its end.

        Returns:
            True if it was consumed; False if the caller must feed it.
        """
        left = self._left - len(data)
        if self.receiving is not LENGTH_BODY or left <= 0 or self.has_unread:
            return False
        self._left = left
        return True

    def stop(self) -> None:
        """Drop all buffered bytes and ignore those that follow."""
        self.receiving = _ON_STOP[self.receiving]
        self.pending = self._unread = b""
        self._unread_from = 0
        self.has_unread = False
        self._body = None

    def _end(self, events: list[Event]) -> None:
        events.append(END)
        if self._keep_alive:
            if self.receiving is not HEAD:  # the request had a body
                self.receiving = _ON_END[self.receiving]
        else:
            self.receiving = _ON_LAST_END[self.receiving]
        self._leading = 0

    def _read_head(self, data: bytes, start: int, events: list[Event]) -> int:
        """Continue a head from `start`; return where reading stopped."""
        stopped = len(data)
        known = len(self.pending)
        size_limit = self._limits.size
        searched = start
        if known:
            # Here `start` is 0: the last feed ended inside the head. One byte above
            # the limit is enough to detect that it is exceeded.
            data = self.pending + data[: size_limit + 1 - known]
            searched = max(0, known - 3)
        elif self._leading or data[start] < 0x20:
            searched = start = self._skip_empty_lines(data, start)
        end = data.find(_HEAD_END, searched, start + size_limit)
        if end < 0:
            self.pending = data[start : start + size_limit + 1]
            self._check_beginning(self.pending, known)
            return stopped
        head = data[start:end]
        try:
            request = self._lines.read_head(
                head, self._limits.fields, self._limits.target
            )
        except Malformed:
            # The same bytes fed one by one would fail in this check first, and the
            # result must not depend on how they are split.
            self._check_beginning(head + _HEAD_END, 0)
            raise
        if known:
            self.pending = b""
        self._line_read = False
        events.append(request)
        self._keep_alive = request.keep_alive
        length = request.content_length
        if length == 0:
            self._end(events)
        elif length is not None:
            self.receiving = _ON_LENGTH[self.receiving]
            self._left = length
        else:
            self.receiving = _ON_CHUNKED[self.receiving]
            self._body = ChunkedBody(
                self._limits.chunk_extensions, self._limits.trailers
            )
        return end + len(_HEAD_END) - known

    def _skip_empty_lines(self, data: bytes, start: int) -> int:
        while start < len(data) and data[start] == b"\r\n"[self._leading % 2]:
            start += 1
            self._leading += 1
            if self._leading > len(b"\r\n") * EMPTY_LINES_LIMIT:
                raise Malformed(400, "too many empty lines before a request")
        if start < len(data) and self._leading % 2:
            raise Malformed(400, "CR without LF before a request")
        return start

    def _check_beginning(self, head: bytes, searched: int) -> None:
        """Reject a head that no further byte can make valid.

        Args:
            head: the received part of the head, or all of it.
            searched: the number of its bytes that were checked before.
        """
        size_limit = self._limits.size
        beginning = head[:size_limit]
        if not self._line_read:
            self._line_read = check_request_line(beginning, self._limits.target)
        if _BARE_LF.search(beginning, searched):
            raise Malformed(400, "LF without CR in the head")
        if len(head) > size_limit:
            raise Malformed(431, f"the head is longer than {size_limit} bytes")
