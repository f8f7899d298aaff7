"""`txgreenwsgi stacks`: the stacks of workers and of requests.

It knows the text. It must never know the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .asking import Parser, question, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Print stacks and return the exit status."""
    parser = Parser("stacks")
    parser.add_argument(
        "of",
        nargs="?",
        default="",
        metavar="WORKER|REQUEST",
        help="the number of a worker, or the id of a request; by default, all workers",
    )

    def command(given: argparse.Namespace) -> tuple[object, str, int]:
        text: str = question(given, "stacks", of=given.of)
        return {"stacks": text}, text.rstrip("\n"), 0

    return run(parser, words, command)
