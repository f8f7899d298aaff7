"""Launcher that runs `manage.py` again in a process that is patched first.

    python -m txgreenwsgi.django.launch REACTOR PATCH (FILE | -m MODULE) [ARG ...]

When `manage.py rungreen` parses its options, Django is already set up, which is too
late to patch. So it starts this module, which installs the reactor, patches the
standard library and runs the same command line again. If that fails while files are
watched, this module waits until a file changes and exits with the status that requests
a restart.

It knows reactors and patching. It must never import Django: the command does so.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "RESTART_STATUS",
    "command",
    "is_launched",
    "is_watched",
    "mark_as_watched",
    "wait_for_change",
]

#: The exit status that requests a restart; the same as that of Django's reloader.
RESTART_STATUS = 3

_LAUNCHED = "TXGREENWSGI_LAUNCHED"
# Django's own reloader also sets it, and applications check it.
_WATCHED = "RUN_MAIN"
_POLL_SECONDS = 1.0


def command(reactor: str, patch: str) -> list[str]:
    """Return the command that runs this process's command line in this module.

    Args:
        reactor: the name of the reactor to install.
        patch: the modules to patch, as for `--patch`.
    """
    import __main__

    words = [sys.executable, *(f"-W{option}" for option in sys.warnoptions)]
    for name, value in sys._xoptions.items():
        words.append(f"-X{name}" if value is True else f"-X{name}={value}")
    words += ["-m", "txgreenwsgi.django.launch", reactor, patch]
    spec = getattr(__main__, "__spec__", None)
    if spec is not None:
        # For `python -m django` the spec is that of `django.__main__`.
        words += ["-m", spec.name.removesuffix(".__main__")]
    else:
        words.append(sys.argv[0])
    return [*words, *sys.argv[1:]]


def is_launched() -> bool:
    """Return whether this module started this process (not just a parent of it)."""
    return os.environ.get(_LAUNCHED) == str(os.getpid())


def is_watched() -> bool:
    """Return whether a watcher restarts this process at its request."""
    return is_launched() and os.environ.get(_WATCHED) == "true"


def mark_as_watched(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment for a process that may request a restart."""
    return environ | {_WATCHED: "true"}


def _prepare(reactor: str, patch: str) -> None:
    from twisted.application.reactors import installReactor

    from txgreenwsgi import isolation
    from txgreenwsgi._launch import patching

    installReactor(reactor)
    patching.patch(patching.parse_patch(patch))
    isolation.isolate_loaded()


def _run(arguments: Sequence[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        sys.path[0] = os.getcwd()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


def _files(error: BaseException) -> Iterator[str]:
    """Yield the files whose change may fix `error`."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file:
            yield file
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame.f_code.co_filename
        step = step.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        yield error.filename


def _modification_times(files: set[str]) -> dict[str, float]:
    found = {}
    for file in files:
        path = Path(file)
        if path.is_file():
            found[file] = path.stat().st_mtime
    return found


def wait_for_change(error: BaseException) -> None:
    """Block until a file changes or the watcher has ended.

    Args:
        error: the end of the command, by which the files are found.
    """
    files = set(_files(error))
    before = _modification_times(files)
    watcher = os.getppid()
    # From here on, no change is missed.
    print("Waiting for a file to change.", file=sys.stderr, flush=True)
    while _modification_times(files) == before and os.getppid() == watcher:
        time.sleep(_POLL_SECONDS)


def main(arguments: Sequence[str]) -> None:
    """Run a command line in this process, patched.

    Args:
        arguments: REACTOR PATCH (FILE | -m MODULE) [ARG ...].

    Raises:
        SystemExit: with the exit status of the command.
    """
    os.environ[_LAUNCHED] = str(os.getpid())
    _prepare(*arguments[:2])
    try:
        _run(arguments[2:])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BaseException as error:
        if not is_watched() or (
            isinstance(error, SystemExit) and error.code in (None, 0, RESTART_STATUS)
        ):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        elif isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        try:
            wait_for_change(error)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        raise SystemExit(RESTART_STATUS) from None


if __name__ == "__main__":
    main(sys.argv[1:])
