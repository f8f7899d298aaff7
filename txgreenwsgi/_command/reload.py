"""`txgreenwsgi reload`: new workers with the code of now.

It knows the text. It must never know the socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._status.units import counted

from .asking import FAILURE_STATUS, Parser, question, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from txgreenwsgi._control.interface import ReloadOutcome

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Reload and return the exit status, which is 1 if the new code fails."""

    def command(given: argparse.Namespace) -> tuple[object, str, int]:
        outcome: ReloadOutcome = question(given, "reload")
        workers = counted(outcome["replaced"], "worker")
        if outcome["succeeded"]:
            return outcome, f"replaced {workers}", 0
        return (
            outcome,
            f"the reload failed after {workers}; the others continue:\n"
            f"{outcome['reason'].rstrip()}",
            FAILURE_STATUS,
        )

    # The boot timeout of the server limits it.
    return run(Parser("reload", timeout=None), words, command)
