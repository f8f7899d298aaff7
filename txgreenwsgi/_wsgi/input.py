"""`wsgi.input`: a request body that parks its reader until the bytes are there.

It has the methods of PEP 3333 and no others, so that a library which knows only
file objects works on it. What is beyond a file, `recv`, is a function outside.
It must never know where the bytes come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    class BodySource(Protocol):
        """Where the pieces of a body come from."""

        def receive(self, wanted: int = ...) -> bytes:
            """The next piece, never empty; b"" at the end. May park.

            `wanted` is how many bytes the reader lacks: a hint, for pieces that
            need not be cut or joined.
            """

        def reader_turn(self) -> None:
            """Let the reactor have a turn: something is read at the end again."""


__all__ = ["MOST_PIECE_BYTES", "PIECE_BYTES", "Input", "recv"]

#: How long a piece had best be, for a reader that takes any; and at the most.
PIECE_BYTES = 65536
MOST_PIECE_BYTES = 262144


class Input:
    """The request body as a file (PEP 3333, "Input and Error Streams").

    Every method may park and is called from a task. A client that is gone
    raises `ClientDisconnected`: a read is never silently short.
    """

    __slots__ = ("_ended", "_piece", "_source")

    def __init__(self, source: BodySource) -> None:
        self._source = source
        # What was received and not read.
        self._piece = b""
        self._ended = False

    def _receive(self, wanted: int = PIECE_BYTES) -> bytes:
        """The next piece; b"" at the end, for which the reactor gets a turn.

        A loop that reads at the end for ever must not stop all others.
        """
        if self._ended:
            self._source.reader_turn()
            return b""
        piece = self._source.receive(wanted)
        if not piece:
            self._ended = True
        return piece

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end; everything by default."""
        held = self._piece
        if size is None or size < 0:
            size = -1
        elif size < len(held):
            self._piece = held[size:]
            return held[:size]
        elif size == len(held):
            self._piece = b""
            return held
        pieces: list[bytes] = [held] if held else []
        missing = size - len(held)
        self._piece = b""
        try:
            while missing:
                piece = self._receive(missing if missing > 0 else MOST_PIECE_BYTES)
                if not piece:
                    break
                if 0 < missing < len(piece):
                    self._piece = piece[missing:]
                    piece = piece[:missing]
                missing -= len(piece)
                pieces.append(piece)
        except BaseException:
            # An interrupted read has read nothing: the next one begins here.
            self._piece = b"".join(pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line with its newline, of at most `size` bytes; b"" at the end."""
        limit = -1 if size is None or size < 0 else size
        if limit == 0:
            return b""
        pieces: list[bytes] = []
        length = 0
        piece, self._piece = self._piece, b""
        while True:
            if not piece:
                try:
                    piece = self._receive()
                except BaseException:
                    self._piece = b"".join(pieces)
                    raise
                if not piece:
                    break
            end = piece.find(b"\n") + 1 or len(piece)
            if limit >= 0:
                end = min(end, limit - length)
            pieces.append(piece[:end])
            length += end
            if end < len(piece) or piece[end - 1] == 10 or length == limit:
                self._piece = piece[end:]
                break
            piece = b""
        return b"".join(pieces)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """All lines; with a `hint`, no more once so many bytes were read."""
        lines = []
        length = 0
        for line in self:
            lines.append(line)
            length += len(line)
            if hint is not None and 0 < hint <= length:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        """The lines that are left."""
        while line := self.readline():
            yield line

    def _recv(self, size: int) -> bytes:
        held = self._piece or self._receive()
        self._piece = held[size:]
        return held[:size]


def recv(environ: dict[str, Any], size: int) -> bytes:
    """At least one byte of the request body and at most `size`, as they come.

    May park. b"" only at the end.

    Args:
        environ: the request's, as the application got it.
        size: the most bytes to return, at least 1.

    Raises:
        ClientDisconnected: the client is gone.
        RuntimeError: middleware replaced `wsgi.input`, and would be bypassed.
        ValueError: `size` is below 1.
    """
    body = environ["wsgi.input"]
    if type(body) is not Input:
        raise RuntimeError(
            "recv() reads the server's own wsgi.input, and middleware has replaced it "
            f"by {body!r}: use the read() of that"
        )
    if size < 1:
        raise ValueError(f"recv() takes a size of at least 1 byte, not {size!r}")
    return body._recv(size)
