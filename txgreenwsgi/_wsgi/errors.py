"""`wsgi.errors`: a text file whose lines go to the log with the request id.

Knows the log. Must never raise or switch: it is called from `except` blocks, from
logging, and from code that holds locks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Errors"]

_log = Logger()

#: An unfinished line longer than this is logged without waiting for its newline.
_LONGEST_LINE = 16384


class Errors:
    """A text file whose lines become log events (PEP 3333, "Error Streams").

    Args:
        request_id: The request's id, logged with every line.

    Attributes:
        partial_line: The text written after the last newline, not yet logged.
    """

    __slots__ = ("_request_id", "partial_line")

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self.partial_line = ""

    def write(self, text: str) -> int:
        """Log the complete lines of `text` and buffer the rest. Never parks."""
        text = str(text)
        lines = (self.partial_line + text).split("\n")
        self.partial_line = lines.pop()
        if len(self.partial_line) > _LONGEST_LINE:
            lines.append(self.partial_line)
            self.partial_line = ""
        for line in lines:
            _log.error(
                "{line} (request {request_id})", line=line, request_id=self._request_id
            )
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each string of `lines`; no newlines are added."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log the partial line, if there is one."""
        if self.partial_line:
            self.write("\n")

    def close(self) -> None:
        """Flush. PEP 3333 forbids applications to close it, but some do."""
        self.flush()
