"""`wsgi.input`: a request body whose readers park until data arrives.

Has exactly the methods of PEP 3333, so that libraries written for file objects work
on it; `SeekableInput`, for a body that was received completely, can also seek. `recv`,
which goes beyond a file, is a function. Must never know where the bytes come from.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from txgreenwsgi._native import lanes
from txgreenwsgi._switching.waiting import yield_if_due

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import WSGIEnvironment

    class BodySource(Protocol):
        """The source of a body's pieces."""

        def receive(self, wanted: int = ...) -> bytes:
            """Return the next piece, never empty; b"" at the end. May park.

            `wanted` is the number of bytes that the reader lacks: a hint that lets
            the source return pieces which need not be split or joined.
            """

        def reader_turn(self) -> None:
            """Park for one reactor turn: a reader polls at the end."""

    class SeekableSource(BodySource, Protocol):
        """The source of a body that was received completely.

        Attributes:
            length: the length of the body in bytes.
            position: index of the byte that `receive` returns next; may be set.
        """

        length: int
        position: int


__all__ = [
    "MAX_PIECE_BYTES",
    "PIECE_BYTES",
    "Input",
    "InputProxy",
    "SeekableInput",
    "recv",
]

#: Preferred size of a piece for a reader that accepts any size.
PIECE_BYTES = 65536
#: Maximum size of a piece.
MAX_PIECE_BYTES = 262144

#: Number of buffered bytes that small reads take between two checks of the time slice.
_STRETCH_BYTES = 4096


@lanes.with_lanes
class Input(lanes.InputState):
    """The request body as a file (PEP 3333, "Input and Error Streams").

    Every method may park; call them from a task. If the client disconnects they raise
    `ClientDisconnected`: a read is never silently short.
    """

    __slots__ = lanes.slots(
        lanes.InputState,
        (
            "_buffered",
            "_ended",
            "_source",
            "_start",
            "_stretch_end",
        ),
    )

    def __init__(self, source: BodySource) -> None:
        self._source = source
        # Received but not read, from `_start` on. Not cut at each read: reads of single
        # bytes or lines would copy a piece many times over.
        self._buffered = b""
        self._start = 0
        # Reads that end before this index do not check the time slice; -1 before the
        # first read, which never does.
        self._stretch_end = -1
        self._ended = False

    def _receive(self, wanted: int = PIECE_BYTES) -> bytes:
        """Return the next piece; b"" at the end, after one reactor turn.

        The iteration keeps a loop that polls at the end from starving other tasks.
        """
        if self._ended:
            self._source.reader_turn()
            return b""
        piece = self._source.receive(wanted)
        if not piece:
            self._ended = True
        return piece

    def read(self, size: int | None = -1, /) -> bytes:
        """Return exactly `size` bytes, fewer only at the end; all by default."""
        if size is None or size < 0:
            size = -1
        else:
            start = self._start
            end = start + size
            if end < self._stretch_end:
                self._start = end
                return self._buffered[start:end]
        pieces: list[bytes] = []
        missing = size
        if self._stretch_end < 0:
            # The first read: nothing is buffered.
            self._stretch_end = 0
        else:
            self._begin_stretch()
            start = self._start
            held = len(self._buffered) - start
            if 0 <= size < held:
                self._start = end = start + size
                return self._buffered[start:end]
            buffered = self._take_buffered()
            if size == held:
                return buffered
            if buffered:
                pieces.append(buffered)
            missing -= held
        try:
            while missing:
                piece = self._receive(missing if missing > 0 else MAX_PIECE_BYTES)
                if not piece:
                    break
                if 0 < missing < len(piece):
                    self._buffered, self._start = piece, missing
                    piece = piece[:missing]
                missing -= len(piece)
                pieces.append(piece)
        except BaseException:
            # An interrupted read consumes nothing: the next read starts over.
            self._buffered = b"".join(pieces)
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return one line with its newline, at most `size` bytes; b"" at the end."""
        limit = -1 if size is None or size < 0 else size
        if limit == 0:
            return b""
        if limit < 0:
            start = self._start
            end = self._buffered.find(b"\n", start, self._stretch_end) + 1
            if end:
                self._start = end
                return self._buffered[start:end]
        self._begin_stretch()
        pieces: list[bytes] = []
        length = 0
        piece, start, stretch_end = self._buffered, self._start, self._stretch_end
        self._buffered, self._start, self._stretch_end = b"", 0, 0
        while True:
            if start == len(piece):
                try:
                    piece = self._receive()
                except BaseException:
                    self._buffered = b"".join(pieces)
                    raise
                start = stretch_end = 0
                if not piece:
                    break
            stop = len(piece)
            if limit >= 0:
                stop = min(stop, start + limit - length)
            end = piece.find(b"\n", start, stop) + 1 or stop
            pieces.append(piece[start:end])
            length += end - start
            if end < len(piece) or piece[end - 1] == 10 or length == limit:
                if end < len(piece):
                    self._buffered, self._start = piece, end
                    self._stretch_end = stretch_end
                break
            start = end
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin_stretch(self) -> None:
        """Yield to the reactor if the task has used up its time slice. May park."""
        if self._stretch_end >= 0:
            yield_if_due()
        self._stretch_end = min(self._start + _STRETCH_BYTES, len(self._buffered))

    def _take_buffered(self) -> bytes:
        buffered, start = self._buffered, self._start
        self._buffered, self._start, self._stretch_end = b"", 0, 0
        return buffered[start:] if start else buffered

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Return all lines; with `hint`, stop once that many bytes have been read."""
        lines = []
        length = 0
        for line in self:
            lines.append(line)
            length += len(line)
            if hint is not None and 0 < hint <= length:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the remaining lines."""
        while line := self.readline():
            yield line

    def _recv(self, size: int) -> bytes:
        self._begin_stretch()
        start = self._start
        end = start + size
        if end < len(self._buffered):
            self._start = end
            return self._buffered[start:end]
        buffered = self._take_buffered() or self._receive()
        if size < len(buffered):
            self._buffered, self._start = buffered, size
        return buffered[:size]


class SeekableInput(Input):
    """A request body that was received completely, as a file that can seek.

    Zope, for example, rewinds its input to repeat a request after a conflict. Methods
    may park while a thread reads a temporary file.
    """

    __slots__ = ()

    _source: SeekableSource

    def __init__(self, source: SeekableSource) -> None:
        super().__init__(source)

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the index of the byte that is read next."""
        return self._source.position - len(self._buffered) + self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the index of the byte that is read next, and return it.

        As for other files, the index may lie behind the end.

        Raises:
            ValueError: `whence` is invalid, or the index would be negative.
        """
        source = self._source
        if whence == os.SEEK_SET:
            position = offset
        elif whence == os.SEEK_CUR:
            position = self.tell() + offset
        elif whence == os.SEEK_END:
            position = source.length + offset
        else:
            raise ValueError(f"seek() whence {whence!r} is invalid: give 0, 1 or 2")
        if position < 0:
            raise ValueError(
                f"seek() to position {position} is before the start of the body: give "
                "a position of at least 0"
            )
        self._take_buffered()
        self._ended = False
        source.position = position
        return position


class InputProxy:
    """Base of the objects that the server itself puts in the place of an `Input`.

    Args:
        body: The original, which `recv` reads.
    """

    __slots__ = ("body",)

    def __init__(self, body: Input) -> None:
        self.body = body


def recv(environ: WSGIEnvironment, size: int) -> bytes:
    """Return the next bytes of the request body as they arrive, at most `size`.

    Parks until at least one byte has arrived. Returns b"" only at the end.

    Args:
        environ: The environ passed to the application.
        size: Maximum number of bytes to return, at least 1.

    Raises:
        ClientDisconnected: The client has disconnected.
        RuntimeError: Middleware has replaced `wsgi.input`; reading from the server's
            own input would bypass it.
        ValueError: `size` is below 1.
    """
    body = environ["wsgi.input"]
    if isinstance(body, InputProxy):
        body = body.body
    if not isinstance(body, Input):
        raise RuntimeError(
            "recv() reads the server's own wsgi.input, but middleware has replaced it "
            f"with {body!r}: call read() of that object"
        )
    if size < 1:
        raise ValueError(f"recv() takes a size of at least 1 byte, not {size!r}")
    return body._recv(size)
