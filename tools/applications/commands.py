"""Programs that end by themselves."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["CommandFailed", "output_of"]


class CommandFailed(Exception):
    """The status of a program is not 0; the message has the end of its output."""


def output_of(
    command: Sequence[str], folder: Path | None = None, **environ: str
) -> str:
    """Run a program and return its output.

    Args:
        command: the words of its command line.
        folder: its working directory.
        environ: added to its environment.

    Raises:
        CommandFailed: its status is not 0.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.stdout[-3000:]}")
    return done.stdout
