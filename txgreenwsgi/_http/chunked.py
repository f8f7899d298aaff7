"""The chunked transfer coding, read (RFC 9112 7.1).

Knows chunk sizes, chunk extensions and trailers, and drops the last two. Must never
know of heads: where a chunked body begins is not decided here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from .fields import FIELD_LINE
from .head import Malformed

if TYPE_CHECKING:
    from .head import End, Refusal, RequestHead

__all__ = ["ChunkedBody"]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'

# RFC 9112 7.1.1, without the white space that it calls bad: no sender has a use
# for it, and readers that disagree about it disagree about where a chunk begins.
_SIZE_LINE = re.compile(
    rf"([0-9A-Fa-f]{{1,16}})((?:;{_TOKEN}(?:=(?:{_TOKEN}|{_QUOTED}))?)*)".encode(
        "latin-1"
    )
)

# 16 digits and CRLF.
_BARE_LINE = 18

# What nearly all size lines are: a size that needs no further check.
_PLAIN_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")

# What can be sent at all fits in 63 bits, and so does what others can count.
_LARGEST_CHUNK = 2**63 - 1


class ChunkedBody:
    """Finds the data of one chunked body, and its end.

    We read this ourselves because httptools does not say at which byte a message
    ended, and collects the trailers without a limit.

    Args:
        extensions_limit: How many bytes all chunk extensions of the body may have
            together.
        trailers_limit: How many bytes all trailers may have together.
    """

    __slots__ = ("_expected", "_extensions_left", "_left", "_line", "_trailers_left")

    def __init__(self, extensions_limit: int, trailers_limit: int) -> None:
        self._expected: Literal["size", "data", "CR", "LF", "trailer", "nothing"]
        self._expected = "size"
        self._extensions_left = extensions_limit
        self._trailers_left = trailers_limit
        self._left = 0
        self._line = b""

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read."""
        return self._expected == "nothing"

    def read(
        self, data: bytes, start: int, events: list[RequestHead | bytes | End | Refusal]
    ) -> int:
        """Read on from `start`, and append the body's data, joined, to `events`.

        Returns:
            Where reading stopped: behind the body, or at the end of `data`.

        Raises:
            Malformed: 400; 431 for too many trailers.
        """
        # One object of a few bytes for each chunk would take many times its room.
        pieces: list[bytes] = []
        try:
            return self._read(data, start, pieces)
        finally:
            if pieces:
                events.append(b"".join(pieces))

    def _read(self, data: bytes, start: int, pieces: list[bytes]) -> int:
        while start < len(data):
            if self._expected == "size":
                if not self._line:
                    start = _read_whole_chunks(data, start, pieces)
                start = self._read_line(data, start)
            elif self._expected == "data":
                end = start + self._left
                piece = data[start:end]
                pieces.append(piece)
                start += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._expected = "CR"
            elif self._expected == "CR":
                if data[start] != 0x0D:
                    raise Malformed(400, "a chunk does not end where its size says")
                start += 1
                self._expected = "LF"
            elif self._expected == "LF":
                if data[start] != 0x0A:
                    raise Malformed(400, "a chunk does not end where its size says")
                start += 1
                self._expected = "size"
            elif self._expected == "nothing":
                break
            else:
                start = self._read_line(data, start)
        return start

    def _read_line(self, data: bytes, start: int) -> int:
        """Read up to the next LF: all of a line, or a part to be kept."""
        end = data.find(b"\n", start) + 1 or len(data)
        line = self._line + data[start:end] if self._line else data[start:end]
        # The limits come first: they hold for a line whose end is not here yet.
        if self._expected == "size":
            if len(line) > _BARE_LINE + self._extensions_left:
                raise Malformed(400, "the chunk extensions are too long")
        elif len(line) > self._trailers_left + len(b"\r\n"):
            raise Malformed(431, "the trailers are too long")
        if not line.endswith(b"\n"):
            self._line = line
            return end
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise Malformed(400, "LF without CR in a chunked body")
        if self._expected == "size":
            self._begin_chunk(line[:-2])
        elif line == b"\r\n":
            self._expected = "nothing"
        else:
            # Dropped: RFC 9110 6.5.1 lets nobody merge them with the fields of the
            # head unseen, and WSGI has no place for them.
            self._trailers_left -= len(line)
            if self._trailers_left < 0:
                raise Malformed(431, "the trailers are too long")
            if FIELD_LINE.fullmatch(line, 0, len(line) - 2) is None:
                raise Malformed(400, "a trailer is not a name, a colon and a value")
        return end

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise Malformed(400, "a chunk does not begin with its size")
        self._extensions_left -= len(match[2])
        if self._extensions_left < 0:
            raise Malformed(400, "the chunk extensions are too long")
        self._left = int(match[1], 16)
        if self._left > _LARGEST_CHUNK:
            raise Malformed(400, "a chunk is too large")
        self._expected = "data" if self._left else "trailer"


def _read_whole_chunks(data: bytes, start: int, pieces: list[bytes]) -> int:
    """Read the chunks that lie in `data` as a whole and have nothing unusual.

    Only for speed, three times that of going from state to state: whoever sends a
    byte a chunk shall not keep others waiting.
    """
    while match := _PLAIN_LINE.match(data, start):
        size = int(match[1], 16)
        begin = match.end()
        end = begin + size
        if size == 0 or data[end : end + 2] != b"\r\n":
            break
        pieces.append(data[begin:end])
        start = end + 2
    return start
