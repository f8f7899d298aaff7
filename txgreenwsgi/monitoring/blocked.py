"""Code lines that blocked the reactor, by the time that they blocked it.

The server's monitor thread adds blocks; the program, and the log at shutdown, read the
sums. It must never know how a block is detected.
"""

from __future__ import annotations

from _thread import allocate_lock
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .stacks import CodeLine, Kind

__all__ = ["BlockedLine", "BlockedReport", "blocked_lines", "report"]

#: Maximum number of lines in a report; beyond it, the one with the least time goes.
_MOST_LINES: Final = 1000

#: Number of lines in the summary.
SUMMARY_LINES: Final = 10


@dataclass(frozen=True)
class BlockedLine:
    """One line of code that blocked the reactor.

    Attributes:
        filename: the path of the file.
        line: the line number, counted from 1.
        function: the name of the function.
        kind: "import", "garbage collection" or "DNS lookup"; "" for other code.
        blocks: the number of blocks.
        seconds: the duration of all blocks.
        longest: the duration of the longest block, in seconds.
        request: the request or other code that the last block belonged to, such as
            "GET /reports/7".
    """

    filename: str
    line: int
    function: str
    kind: str
    blocks: int
    seconds: float
    longest: float
    request: str

    def __str__(self) -> str:
        times = "1 block" if self.blocks == 1 else f"{self.blocks} blocks"
        kind = f", {self.kind}" if self.kind else ""
        return (
            f"{self.seconds:.2f} s in {times}, at most {self.longest:.2f} s: "
            f"{self.filename}:{self.line} in {self.function}{kind} ({self.request})"
        )


class BlockedReport:
    """The sums of all blocks, by line. Call from any thread.

    Attributes:
        blocks: the number of all blocks, those of forgotten lines included.
        seconds: their duration.
    """

    def __init__(self) -> None:
        # Not `threading.Lock`, which parks tasks if it is patched.
        self._lock = allocate_lock()
        self.blocks = 0
        self.seconds = 0.0
        self._lines: dict[tuple[CodeLine, str], BlockedLine] = {}
        self._changed = False

    def add(self, line: CodeLine, kind: Kind, seconds: float, request: str) -> None:
        """Add one block of `seconds` to the sums of its line."""
        with self._lock:
            self.blocks += 1
            self.seconds += seconds
            lines = self._lines
            before = lines.get((line, kind))
            if before is None and len(lines) >= _MOST_LINES:
                del lines[min(lines, key=lambda key: lines[key].seconds)]
            lines[line, kind] = BlockedLine(
                filename=line.filename,
                line=line.line,
                function=line.function,
                kind=kind,
                blocks=1 if before is None else before.blocks + 1,
                seconds=seconds + (0.0 if before is None else before.seconds),
                longest=max(seconds, 0.0 if before is None else before.longest),
                request=request,
            )
            self._changed = True

    def lines(self) -> list[BlockedLine]:
        """Return all lines, the one with the most time first."""
        with self._lock:
            lines = list(self._lines.values())
        return sorted(lines, key=lambda line: line.seconds, reverse=True)

    def summary(self) -> list[BlockedLine]:
        """Return the first lines; none if nothing was added since the last call."""
        if not self._changed:
            return []
        self._changed = False
        return self.lines()[:SUMMARY_LINES]

    def reset(self) -> None:
        """Forget all lines, in the child of a fork for instance."""
        self._lock = allocate_lock()
        self.blocks = 0
        self.seconds = 0.0
        self._lines = {}
        self._changed = False


#: The report of this process.
report: Final = BlockedReport()


def blocked_lines() -> list[BlockedLine]:
    """Return the code lines that blocked the reactor, by the time that they blocked it.

    The line with the most time is first. The list covers all servers of this process
    since its start. A block counts if it lasts longer than `--blocked-after`, for the
    line of the application that ran for most of it. Call from any thread; never parks.
    """
    return report.lines()
