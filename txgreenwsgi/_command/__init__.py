"""The command `txgreenwsgi`: a server in the foreground, and its subcommands.

    txgreenwsgi [SPEC] [options]
    txgreenwsgi status|top|reload|scale|stacks|from-gunicorn ...

The first argument selects a subcommand by its exact name; anything else serves an
application. An application with the name of a subcommand is served by `--app`.

It knows command lines. It must never know how a server works: it runs twistd, or talks
to the control socket of a server. It must not import the reactor, which twistd chooses.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SUBCOMMANDS", "USAGE_STATUS", "Subcommand", "main"]

#: The exit status for a wrong command line.
USAGE_STATUS: Final = 2


class Subcommand(NamedTuple):
    """A word that does not serve an application.

    Attributes:
        module: the module with its `main`, which takes the arguments after the word
            and returns the exit status. Imported when it is used.
        form: the arguments, for `--help`.
        meaning: one line for `--help`.
    """

    module: str
    form: str
    meaning: str


_HERE: Final = __name__

#: The subcommands by name.
SUBCOMMANDS: Final[dict[str, Subcommand]] = {
    "status": Subcommand(
        f"{_HERE}.status", "", "Show the workers and the requests in flight."
    ),
    "top": Subcommand(
        f"{_HERE}.top",
        "",
        "Show requests, rates, slow routes, blocks and failures, again each second.",
    ),
    "reload": Subcommand(
        f"{_HERE}.reload", "", "Load the code again in new workers, and wait for them."
    ),
    "scale": Subcommand(f"{_HERE}.scale", "N|+N|-N", "Change the number of workers."),
    "stacks": Subcommand(
        f"{_HERE}.stacks",
        "[WORKER|REQUEST]",
        "Print the stacks of a worker's tasks and threads, or those of a request.",
    ),
    "from-gunicorn": Subcommand(
        "txgreenwsgi._migration.from_gunicorn",
        "[FILE] [-- OPTIONS OF GUNICORN]",
        "Print the configuration file for a gunicorn.conf.py.",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: those after the name of the program; `sys.argv` by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    subcommand = SUBCOMMANDS.get(words[0]) if words else None
    module = import_module(
        f"{_HERE}.serve" if subcommand is None else subcommand.module
    )
    status: int = module.main(words if subcommand is None else words[1:])
    return status
