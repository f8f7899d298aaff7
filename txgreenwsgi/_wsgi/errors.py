"""`wsgi.errors`: a text file whose lines go to the log with the request id.

Knows the log. Must never raise or switch: it is called from `except` blocks, from
logging, and from code that holds locks.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from twisted.logger import Logger

from txgreenwsgi._native import lanes

from .partial_lines import LONGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .partial_lines import PartialLines

__all__ = ["Errors", "current_errors", "set_current_errors"]

_log = Logger()


@lanes.with_lanes
class Errors(lanes.ErrorsState):
    """A text file whose lines become log events (PEP 3333, "Error Streams").

    Args:
        request_id: The request's id, logged with every line.

    Attributes:
        request_id: As given.
        partial_line: The text written after the last newline, not yet logged.
        partial_output: The same for what the request has printed; None if it has
            printed nothing.
        traceparent: The Traceparent field of the request, as sent (W3C Trace Context).
            Not set without one.
    """

    __slots__ = lanes.slots(
        lanes.ErrorsState,
        (
            "partial_line",
            "partial_output",
            "request_id",
            "traceparent",
        ),
    )

    traceparent: str

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.partial_line = ""
        self.partial_output: PartialLines | None = None

    def write(self, text: str) -> int:
        """Log the complete lines of `text` and buffer the rest. Never parks."""
        text = str(text)
        lines = (self.partial_line + text).split("\n")
        self.partial_line = lines.pop()
        if len(self.partial_line) > LONGEST_LINE:
            lines.append(self.partial_line)
            self.partial_line = ""
        for index, line in enumerate(lines):
            _log.error(
                "{line} (request {request_id})",
                line=line,
                request_id=self.request_id,
                continues=index > 0,
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

    def end(self) -> None:
        """Log all unfinished lines. Call when the request has ended."""
        self.flush()
        output = self.partial_output
        while output:
            output.popitem()[1].end()


#: The `wsgi.errors` of the request to which the running code belongs. Tasks and threads
#: that inherit the context of a request belong to it, even after its end.
current_errors: ContextVar[Errors | None] = ContextVar("current_errors", default=None)

#: Sets `current_errors` in the current context. Looked up once, for the hot path.
set_current_errors = current_errors.set
lanes.lend(current_errors=current_errors)
