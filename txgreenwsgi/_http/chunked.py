"""Decoder for the chunked transfer coding (RFC 9112 7.1).

Knows chunk sizes, chunk extensions and trailers; discards extensions and trailers.
Must never know heads: the parser decides where a chunked body begins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from .fields import FIELD_LINE
from .head import Malformed

if TYPE_CHECKING:
    from .head import End, Refusal, RequestHead

__all__ = ["MAX_CHUNKS", "ChunkedBody"]

#: Maximum number of chunks that are decoded in one call: about a millisecond's work.
MAX_CHUNKS = 512

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'

# RFC 9110 5.6.3: a recipient must parse "bad" whitespace and remove it.
_BWS = r"[ \t]*"
_VALUE = rf"{_BWS}={_BWS}(?:{_TOKEN}|{_QUOTED})"

# RFC 9112 7.1.1. The grammar has bad whitespace before and after the semicolon and
# the equals sign, and nowhere else: not around a size without extensions, and not
# before CRLF. Each part begins with a byte that cannot continue the part before it, so
# a line has one reading only, and matching takes linear time.
_SIZE_LINE = re.compile(
    rf"([0-9A-Fa-f]{{1,16}})((?:{_BWS};{_BWS}{_TOKEN}(?:{_VALUE})?)*)".encode("latin-1")
)

# Longest size line without extensions: 16 digits and CRLF.
_BARE_SIZE_LINE_BYTES = 18

# Fast path for the common size line: 15 digits cannot exceed _LARGEST_CHUNK.
_PLAIN_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")

# Largest size in a signed 64-bit integer, which other implementations use.
_LARGEST_CHUNK = 2**63 - 1


class ChunkedBody:
    """Incremental decoder of one chunked body.

    httptools is not used for this: it does not report the byte at which a message
    ends, and it collects trailers without a limit.

    Args:
        extensions_limit: Maximum total size of all chunk extensions, in bytes.
        trailers_limit: Maximum total size of all trailer lines, in bytes.
    """

    __slots__ = (
        "_chunk_remaining",
        "_expected",
        "_extensions_remaining",
        "_partial_line",
        "_trailers_remaining",
    )

    def __init__(self, extensions_limit: int, trailers_limit: int) -> None:
        self._expected: Literal["size", "data", "CR", "LF", "trailer", "nothing"]
        self._expected = "size"
        self._extensions_remaining = extensions_limit
        self._trailers_remaining = trailers_limit
        self._chunk_remaining = 0
        self._partial_line = b""

    @property
    def ended(self) -> bool:
        """True once the last chunk and the trailers have been read."""
        return self._expected == "nothing"

    def read(
        self, data: bytes, start: int, events: list[RequestHead | bytes | End | Refusal]
    ) -> int:
        """Decode from `start` on and append the body data to `events`.

        All data found in one call is joined into one event.

        Returns:
            The index after the last byte consumed: the end of the body or of `data`,
            or the place to continue after `MAX_CHUNKS` chunks.

        Raises:
            Malformed: 400; 431 if the trailers exceed their limit.
        """
        # Joined, because one bytes object per small chunk would take many times the
        # memory of its data.
        pieces: list[bytes] = []
        try:
            return self._read(data, start, pieces)
        finally:
            if pieces:
                events.append(b"".join(pieces))

    def _read(self, data: bytes, start: int, pieces: list[bytes]) -> int:
        while start < len(data) and len(pieces) < MAX_CHUNKS:
            if self._expected == "size":
                if not self._partial_line:
                    start = _read_whole_chunks(data, start, pieces)
                    if start >= len(data) or len(pieces) >= MAX_CHUNKS:
                        break
                start = self._read_line(data, start)
            elif self._expected == "data":
                end = start + self._chunk_remaining
                piece = data[start:end]
                pieces.append(piece)
                start += len(piece)
                self._chunk_remaining -= len(piece)
                if self._chunk_remaining == 0:
                    self._expected = "CR"
            elif self._expected == "CR":
                if data[start] != 0x0D:
                    raise Malformed(400, "chunk data is not followed by CRLF")
                start += 1
                self._expected = "LF"
            elif self._expected == "LF":
                if data[start] != 0x0A:
                    raise Malformed(400, "chunk data is not followed by CRLF")
                start += 1
                self._expected = "size"
            elif self._expected == "nothing":
                break
            else:
                start = self._read_line(data, start)
        return start

    def _read_line(self, data: bytes, start: int) -> int:
        """Consume data up to the next LF; buffer the line if it is incomplete."""
        end = data.find(b"\n", start) + 1 or len(data)
        line = data[start:end]
        if self._partial_line:
            line = self._partial_line + line
        # Check the limits first: they apply to incomplete lines as well.
        if self._expected == "size":
            if len(line) > _BARE_SIZE_LINE_BYTES + self._extensions_remaining:
                raise Malformed(400, "the chunk extensions are too long")
        elif len(line) > self._trailers_remaining + len(b"\r\n"):
            raise Malformed(431, "the trailers are too long")
        if not line.endswith(b"\n"):
            self._partial_line = line
            return end
        self._partial_line = b""
        if not line.endswith(b"\r\n"):
            raise Malformed(400, "LF without CR in a chunked body")
        if self._expected == "size":
            self._begin_chunk(line[:-2])
        elif line == b"\r\n":
            self._expected = "nothing"
        else:
            # Discarded: RFC 9110 6.5.1 forbids merging trailers into the header
            # fields unless their definition allows it, and WSGI has no place for
            # them.
            self._trailers_remaining -= len(line)
            if self._trailers_remaining < 0:
                raise Malformed(431, "the trailers are too long")
            if FIELD_LINE.fullmatch(line, 0, len(line) - 2) is None:
                raise Malformed(400, "malformed trailer line: expected 'name: value'")
        return end

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise Malformed(400, "malformed chunk size line")
        self._extensions_remaining -= len(match[2])
        if self._extensions_remaining < 0:
            raise Malformed(400, "the chunk extensions are too long")
        self._chunk_remaining = int(match[1], 16)
        if self._chunk_remaining > _LARGEST_CHUNK:
            raise Malformed(400, "the chunk size is too large")
        self._expected = "data" if self._chunk_remaining else "trailer"


def _read_whole_chunks(data: bytes, start: int, pieces: list[bytes]) -> int:
    """Consume the chunks that are complete in `data` and have no extensions.

    A fast path, three times as fast as the state machine: a client that sends one
    byte per chunk must not delay other requests.
    """
    while len(pieces) < MAX_CHUNKS and (match := _PLAIN_SIZE_LINE.match(data, start)):
        size = int(match[1], 16)
        begin = match.end()
        end = begin + size
        if size == 0 or data[end : end + 2] != b"\r\n":
            break
        pieces.append(data[begin:end])
        start = end + 2
    return start
