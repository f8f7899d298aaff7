"""Run a command with the standard library patched from the interpreter's start.

    python -m txgreenwsgi.patched opentelemetry-instrument twistd -n greenwsgi ...

An agent that instruments an application from `sitecustomize` runs before the command
patches the standard library: its locks, thread-locals and connections, and the
libraries that it imports, are the blocking ones. This module lets Python patch first.

It changes the environment and executes the command in this process. Programs that the
command executes in its own place are patched too, and no others. With `python -I -m
txgreenwsgi.patched`, PYTHONPATH takes effect in the command only.

It knows the environment. It must never patch.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["environment", "main"]

_DIRECTORY = Path(__file__).resolve().parent / "_launch" / "startup"


def environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which a program that this process executes is patched.

    For `os.execve`: the variables hold the id of this process, and have no effect in
    another one. Never parks.
    """
    paths = (str(_DIRECTORY), variables.get("PYTHONPATH", ""))
    return {
        **variables,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TXGREENWSGI_PATCHED": str(os.getpid()),
    }


def main(arguments: Sequence[str]) -> None:
    """Execute a command in the place of this process. Returns only by an exception.

    Args:
        arguments: the command and its arguments.

    Raises:
        SystemExit: no command was given, or it cannot be executed.
    """
    if not arguments:
        raise SystemExit("usage: python -m txgreenwsgi.patched COMMAND [ARG ...]")
    command = shutil.which(arguments[0])
    if command is None:
        # Installed beside this interpreter, whose environment may not be activated.
        command = shutil.which(arguments[0], path=str(Path(sys.executable).parent))
    if command is None:
        raise SystemExit(
            f"txgreenwsgi.patched: {arguments[0]!r} is not an executable program: give "
            "a command on the PATH, or python and a script"
        )
    if sys.stdout is not None:  # closed by the parent process
        sys.stdout.flush()
    try:
        os.execve(command, list(arguments), environment())
    except OSError as error:
        raise SystemExit(
            f"txgreenwsgi.patched: {command!r} cannot be executed ({error}): give a "
            "program, or python and a script"
        ) from None


if __name__ == "__main__":
    main(sys.argv[1:])
