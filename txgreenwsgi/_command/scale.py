"""`txgreenwsgi scale N`: another number of workers.

It knows the text. It must never know the socket.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, NamedTuple

from txgreenwsgi._status.units import counted

from .asking import Parser, question, run

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


class _Count(NamedTuple):
    """The number of workers, or a difference."""

    number: int
    relative: bool


def _count(text: str) -> _Count:
    found = re.fullmatch(r"([+-]?)([0-9]{1,4})", text)
    if found is None or int(found[2]) == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of workers: give 4, +1 or -1"
        )
    return _Count(int(text), bool(found[1]))


def main(words: Sequence[str]) -> int:
    """Change the number of workers and return the exit status."""
    parser = Parser("scale")
    parser.add_argument(
        "count",
        metavar="N",
        type=_count,
        help="the number of workers, or a difference such as +1 or -1",
    )

    def command(given: argparse.Namespace) -> tuple[object, str, int]:
        count: _Count = given.count
        target: int = question(
            given, "scale", number=count.number, relative=count.relative
        )
        return {"target": target}, f"scaling to {counted(target, 'worker')}", 0

    return run(parser, words, command)
