"""`manage.py` again, in a process that is patched before anything of it is imported.

    python -m txgreenwsgi.django.launch REACTOR PATCH (FILE | -m MODULE) [ARG ...]

`manage.py rungreen` has set Django up when it learns what it is asked for, too
late to patch. So it starts this, which installs the reactor, patches, and runs the
same command line once more. If that fails while the files are watched, this waits
for one of them to change and ends with the status that means "once more".

It knows reactors and patching. It must never import Django: what is run does.
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
    "AGAIN",
    "command",
    "is_launched",
    "is_watched",
    "mark_as_watched",
]

#: The exit status that asks the watcher for another start, as Django's reloader's.
AGAIN = 3

_LAUNCHED = "TXGREENWSGI_LAUNCHED"
#: What Django's own reloader sets, and applications look for.
_WATCHED = "RUN_MAIN"
_LOOK_SECONDS = 1.0


def command(reactor: str, patch: str) -> list[str]:
    """The command line that runs this process's own by `launch`."""
    import __main__

    words = [sys.executable, *(f"-W{option}" for option in sys.warnoptions)]
    for name, value in sys._xoptions.items():
        words.append(f"-X{name}" if value is True else f"-X{name}={value}")
    words += ["-m", "txgreenwsgi.django.launch", reactor, patch]
    spec = getattr(__main__, "__spec__", None)
    if spec is not None:
        # `python -m django`: its name is that of its `__main__`.
        words += ["-m", spec.name.removesuffix(".__main__")]
    else:
        words.append(sys.argv[0])
    return [*words, *sys.argv[1:]]


def is_launched() -> bool:
    """Was this process made by `launch`? Not what it starts itself."""
    return os.environ.get(_LAUNCHED) == str(os.getpid())


def is_watched() -> bool:
    """Will there be another start, if this process asks for it?"""
    return is_launched() and os.environ.get(_WATCHED) == "true"


def mark_as_watched(environ: dict[str, str]) -> dict[str, str]:
    """The environment for a process that may ask for another start."""
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
    """The files whose change may mend `error`."""
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


def _changed_at(files: set[str]) -> dict[str, float]:
    found = {}
    for file in files:
        path = Path(file)
        if path.is_file():
            found[file] = path.stat().st_mtime
    return found


def _wait_for_change(error: BaseException) -> None:
    """Return when a file was changed, or the watcher is gone."""
    files = set(_files(error))
    before = _changed_at(files)
    watcher = os.getppid()
    while _changed_at(files) == before and os.getppid() == watcher:
        time.sleep(_LOOK_SECONDS)


def main(arguments: Sequence[str]) -> None:
    """Run a command line, patched.

    Raises:
        SystemExit: with its status.
    """
    os.environ[_LAUNCHED] = str(os.getpid())
    _prepare(*arguments[:2])
    try:
        _run(arguments[2:])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BaseException as error:
        if not is_watched() or (
            isinstance(error, SystemExit) and error.code in (None, 0, AGAIN)
        ):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        elif isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        print("Waiting for a file to change.", file=sys.stderr, flush=True)
        try:
            _wait_for_change(error)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        raise SystemExit(AGAIN) from None


if __name__ == "__main__":
    main(sys.argv[1:])
