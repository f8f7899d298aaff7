"""Patch the standard library when the interpreter starts.

`txgreenwsgi.patched` puts this directory at the front of PYTHONPATH, so Python imports
this module at its start, in place of another `sitecustomize`. It patches, and then runs
the other one. It is also imported by interpreters that do not have txgreenwsgi, such as
that of a wrapper script, so it imports nothing but the standard library at its top.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

# The process to patch. A wrapper executes the command in its own process; processes
# that the command starts are not patched.
_VARIABLE = "TXGREENWSGI_PATCHED"
_HERE = os.path.dirname(os.path.abspath(__file__))

_execv, _execve = os.execv, os.execve


def _without_this(paths: list[str]) -> list[str]:
    return [path for path in paths if os.path.abspath(path or ".") != _HERE]


def _leave_the_path() -> None:
    """Undo the changes of the environment, which child processes inherit."""
    sys.path[:] = _without_this(sys.path)
    paths = _without_this(os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if any(paths):
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        os.environ.pop("PYTHONPATH", None)


def _follow_exec(process: str) -> None:
    """Patch the program too that this process executes in its place."""

    def environment(variables: Mapping[str, str]) -> dict[str, str]:
        if str(os.getpid()) != process:  # a forked child
            return dict(variables)
        given = variables.get("PYTHONPATH")
        return {
            **variables,
            "PYTHONPATH": _HERE + (os.pathsep + given if given else ""),
            _VARIABLE: process,
        }

    def execv(path: str, argv: list[str] | tuple[str, ...]) -> NoReturn:
        """As `os.execv`."""
        _execve(path, argv, environment(os.environ))

    def execve(
        path: str, argv: list[str] | tuple[str, ...], env: Mapping[str, str]
    ) -> NoReturn:
        """As `os.execve`."""
        _execve(path, argv, environment(env))

    # The other functions call these two.
    os.execv, os.execve = execv, execve  # type: ignore[assignment]


def _run_next() -> None:
    """Run the `sitecustomize` that Python would have imported otherwise."""
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_process = os.environ.pop(_VARIABLE, "")
_leave_the_path()
if _process == str(os.getpid()):
    _follow_exec(_process)
    with contextlib.suppress(ImportError):  # the interpreter of another environment
        from txgreenwsgi import monkey

        monkey.patch_all()
_run_next()
