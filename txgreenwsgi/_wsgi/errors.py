"""`wsgi.errors`: lines to the log, with the request they belong to.

It never raises and never switches: it is called from `except` blocks, from
logging, and from code that holds locks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Errors"]

_log = Logger(namespace="txgreenwsgi.wsgi.errors")

#: A line without an end is logged once it is as long as this.
_LONGEST_LINE = 16384


class Errors:
    """A text file whose lines become log events (PEP 3333, "Error Streams").

    Args:
        request_id: told with every line.

    Attributes:
        held: what has come of a line that has no end yet.
    """

    __slots__ = ("_request_id", "held")

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self.held = ""

    def write(self, text: str) -> int:
        """Log the whole lines of `text`; the rest waits for its end. Never parks."""
        text = str(text)
        lines = (self.held + text).split("\n")
        self.held = lines.pop()
        if len(self.held) > _LONGEST_LINE:
            lines.append(self.held)
            self.held = ""
        for line in lines:
            _log.error(
                "{line} (request {request_id})", line=line, request_id=self._request_id
            )
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what waits for the end of its line."""
        if self.held:
            self.write("\n")

    def close(self) -> None:
        """Flush. Applications must not call it (PEP 3333), and some do."""
        self.flush()
