"""Lines that are written in parts.

It must never know the log or the request: the owner of a line passes a function that
logs it.
"""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LONGEST_LINE", "PartialLine", "PartialLines"]

#: An unfinished line longer than this is logged without waiting for its newline.
LONGEST_LINE = 16384


class PartialLine:
    """The output of one request, or of one thread, after its last newline.

    Logged at the latest when the object is dropped: with its request, and with the
    last task that outlives the request.

    Args:
        emit: called with each complete line, and whether it continues the line
            before it: both were written at once.

    Attributes:
        text: the decoded characters.
    """

    __slots__ = ("_decoder", "_emit", "text")

    def __init__(self, emit: Callable[[str, bool], object]) -> None:
        self._emit = emit
        self._decoder: codecs.IncrementalDecoder | None = None
        self.text = ""

    def add(self, text: str) -> None:
        """Log the complete lines of `text` and keep the rest."""
        if self._decoder is not None:
            # Text ends a character of which only the first bytes were written.
            text = self._decoder.decode(b"", True) + text
            self._decoder = None
        self._add(text)

    def add_bytes(self, data: bytes, encoding: str) -> None:
        """Decode `data`; log its complete lines and keep the rest."""
        decoder = self._decoder
        if decoder is None:
            decoder = codecs.getincrementaldecoder(encoding)("backslashreplace")
        self._add(decoder.decode(data))
        # Text may follow only if no character is incomplete.
        self._decoder = decoder if decoder.getstate()[0] else None

    def _add(self, text: str) -> None:
        *lines, self.text = (self.text + text).split("\n")
        if len(self.text) > LONGEST_LINE:
            lines.append(self.text)
            self.text = ""
        for index, line in enumerate(lines):
            # A lone carriage return rewrites a line of a terminal.
            self._emit(line.strip("\r"), index > 0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to log."""
        return not self.text and self._decoder is None

    def end(self) -> None:
        """Log the rest."""
        self.add("")
        if self.text:
            self._add("\n")

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Log the rest, if there is one and the interpreter does not end."""
        if not self.is_empty and not is_finalizing():
            self.end()


#: Unfinished lines by stream and thread.
PartialLines: TypeAlias = "dict[tuple[object, int], PartialLine]"
