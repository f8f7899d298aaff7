"""The request body of a transport that stores it before the exchange begins.

It knows a file that the transport owns. It must never know the transport.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from txgreenwsgi._wsgi.input import PIECE_BYTES

if TYPE_CHECKING:
    from .body import RequestBody

__all__ = ["StoredBody"]


class StoredBody:
    """A `SeekableSource` that reads a file with the complete body.

    Args:
        file: the file; its owner closes it.
        length: its length in bytes.
        body: holds the error of reads, for example after the client disconnected.

    Attributes:
        length: as given.
        position: index of the byte that `receive` returns next; may be set.
    """

    def __init__(self, file: IO[bytes], length: int, body: RequestBody) -> None:
        self.length = length
        self.position = 0
        self._file = file
        self._body = body

    def receive(self, wanted: int = PIECE_BYTES) -> bytes:
        """Return the next piece, b"" at the end. Never parks.

        Raises:
            ClientDisconnected: the client has disconnected.
            ValueError: the request has ended.
        """
        body = self._body
        if body.error is not None:
            raise body.error
        if self.position >= self.length:
            body.ended()
            return b""
        self._file.seek(self.position)
        piece = self._file.read(min(wanted, PIECE_BYTES))
        self.position += len(piece)
        return piece

    def reader_turn(self) -> None:
        """Park for a reactor turn. Raises the error of a cut request."""
        self._body.reader_turn()
