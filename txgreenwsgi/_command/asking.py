"""The parts that the subcommands for a running server have in common.

It knows command lines and exit statuses. It must never know twistd, whose import takes
longer than an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from txgreenwsgi._control.client import ANSWER_SECONDS, ask, find_server
from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._control.place import AUTOMATIC, NONE

from . import SUBCOMMANDS, USAGE_STATUS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "FAILURE_STATUS",
    "Parser",
    "printable",
    "question",
    "report",
    "run",
    "seconds_of",
]

#: The exit status for a command that has failed, or that no server has carried out.
FAILURE_STATUS = 1

# That of the server's option.
_VARIABLE = "TXGREENWSGI_CONTROL"


class Parser(argparse.ArgumentParser):
    """The command line of a subcommand.

    Args:
        name: the subcommand; its description is that of `SUBCOMMANDS`.
        timeout: seconds to wait for the answer; None without a limit.
    """

    def __init__(self, name: str, timeout: float | None = ANSWER_SECONDS) -> None:
        super().__init__(
            f"txgreenwsgi {name}",
            description=SUBCOMMANDS[name].meaning,
            allow_abbrev=False,
        )
        self.add_argument(
            "--control",
            metavar="PATH",
            help=f"control socket of the server; by default ${_VARIABLE}, or that of "
            "the only running server of this user",
        )
        self.add_argument(
            "--json", action="store_true", help="print the answer as JSON"
        )
        shown = "no limit" if timeout is None else f"{timeout:g}"
        self.add_argument(
            "--timeout",
            type=seconds_of,
            default=timeout,
            metavar="SECONDS",
            help=f"time to wait for the answer [default: {shown}]",
        )

    def error(self, message: str) -> NoReturn:
        """Print the error and one line, and exit."""
        print(f"{self.prog}: {message}", file=sys.stderr)
        print(f"{self.prog} --help lists the options", file=sys.stderr)
        sys.exit(USAGE_STATUS)


def seconds_of(text: str) -> float:
    """Return a time above 0, given on the command line.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds: give 30 or 0.5"
        )
    return seconds


def question(given: argparse.Namespace, command: str, **arguments: Any) -> Any:
    """Ask the server that the command line selects, and return its answer.

    Raises:
        ControlError: there is no answer, or the server refuses.
    """
    path = given.control or os.environ.get(_VARIABLE, "")
    if path in ("", AUTOMATIC, NONE):
        path = find_server()
    return ask(path, command, timeout=given.timeout, **arguments)


def run(
    parser: Parser,
    words: Sequence[str],
    command: Callable[[argparse.Namespace], tuple[object, str, int]],
) -> int:
    """Parse a command line, carry the command out and print its result.

    Args:
        parser: of the command line.
        words: the arguments after the subcommand.
        command: returns the result for `--json`, its text, and the exit status. May
            raise `ControlError`.

    Returns:
        The exit status.
    """
    given = parser.parse_args(words)
    try:
        result, text, status = command(given)
    except ControlError as error:
        return report(error, parser, given)
    if given.json:
        print(json.dumps(result, indent=2))
    elif text:
        print(printable(text))
    return status


def report(error: ControlError, parser: Parser, given: argparse.Namespace) -> int:
    """Print why a command has failed, and return the exit status."""
    if given.json:
        print(json.dumps({"error": str(error)}))
    print(f"{parser.prog}: {printable(str(error))}", file=sys.stderr)
    return FAILURE_STATUS


def printable(text: str) -> str:
    """Return text without characters that control a terminal, except line ends.

    Paths of requests come from clients.
    """
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1]
        for char in text
    )
