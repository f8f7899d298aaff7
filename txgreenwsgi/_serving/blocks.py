"""Blocks of the reactor, as the monitor notes them and records show them.

It knows times and code lines. It must never know how a block is detected.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from txgreenwsgi.monitoring.stacks import CodeLine, Kind

__all__ = ["Block", "seconds_blocked", "seconds_so_far"]


@dataclass
class Block:
    """One block of the reactor.

    Attributes:
        since: its start, by `time.monotonic`.
        ended: its end, by `time.monotonic`; None before.
        request: the request that blocks, such as "GET /reports/7"; else a description
            of the code.
        name: the same for the log, with the identity of the request.
        samples: the lines that were seen, and the number of samples.
        line: the line that was reported.
        kind: the kind of block.
        waiting: the number of other requests in flight when it was noticed.
        told: whether a message was logged.
        quiet: whether it is ignored, because a debugger is active.
    """

    since: float
    request: str
    name: str
    line: CodeLine
    kind: Kind = ""
    ended: float | None = None
    samples: Counter[CodeLine] = field(default_factory=Counter)
    waiting: int = 0
    told: bool = False
    quiet: bool = False

    def cancel(self) -> None:
        """Take the block back: its request has not blocked."""
        self.ended = self.since


def seconds_blocked(blocks: Collection[Block]) -> float:
    """Return the duration of the blocks of a request that ends now.

    Call from the reactor's thread. A block without an end ends now.
    """
    for block in blocks:
        if block.ended is None:
            block.ended = monotonic()
    return seconds_so_far(blocks)


def seconds_so_far(blocks: Iterable[Block]) -> float:
    """Return the duration of the blocks of a request in flight."""
    seconds = (
        (monotonic() if block.ended is None else block.ended) - block.since
        for block in blocks
    )
    return sum(seconds, 0.0)
