"""`txgreenwsgi from-gunicorn`: print the configuration file for a gunicorn.conf.py.

It knows its command line. It must never know what a setting means.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

from .gunicorn_config import DEFAULT_FILE, GunicornError, load
from .translation import translate

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_USAGE: Final = """\
Usage: txgreenwsgi from-gunicorn [FILE] [-- OPTIONS OF GUNICORN]

Print the configuration file of txgreenwsgi for a configuration of gunicorn, with a
comment for each setting, and a list of those that have no counterpart. The file is
executed, as gunicorn does: run the command in the same directory and environment.

  txgreenwsgi from-gunicorn gunicorn.conf.py > txgreenwsgi.toml
  txgreenwsgi from-gunicorn -- -w 4 -b 0.0.0.0:8000 shop.wsgi

FILE is a path, or python:MODULE. Without FILE, it is the one that the options name, or
gunicorn.conf.py. GUNICORN_CMD_ARGS counts too.
"""
_WRONG_USAGE: Final = 2


def main(argv: Sequence[str]) -> int:
    """Print the translation and return the exit status.

    Args:
        argv: the arguments after the word from-gunicorn.
    """
    words = list(argv)
    options: list[str] = []
    if "--" in words:
        index = words.index("--")
        words, options = words[:index], words[index + 1 :]
    if "--help" in words or "-h" in words:
        print(_USAGE, end="")
        return 0
    if len(words) > 1 or words[:1] == [""] or (words and words[0].startswith("-")):
        wrong = words[0] if words[0].startswith("-") else words[-1]
        return _fail(
            f"{wrong!r} is not expected here: give one FILE, and options of gunicorn "
            "after --",
            _WRONG_USAGE,
        )
    environ = dict(os.environ)
    named = "GUNICORN_CMD_ARGS" in environ or os.path.exists(DEFAULT_FILE)
    if not words and not options and not named:
        return _fail(
            f"there is no {DEFAULT_FILE[2:]} in this directory: give FILE, or options "
            "of gunicorn after --",
            _WRONG_USAGE,
        )
    directory = os.getcwd()
    try:
        configuration = load(words[0] if words else None, options, environ)
    except GunicornError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return _fail(str(error), 1)
    translation = translate(configuration, environ, directory)
    print(translation.text, end="")
    if translation.missing and not sys.stdout.isatty():
        count = len(translation.missing)
        print(
            f"{count} without a counterpart: see the end of the output",
            file=sys.stderr,
        )
    return 0


def _fail(message: str, status: int) -> int:
    print(f"txgreenwsgi from-gunicorn: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
