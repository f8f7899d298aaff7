"""`--offload`: functions that run in the reactor's thread pool, by name.

The name "heavy" stands for the heavy calls of well-known modules. This file knows
Python's import system. Offload before the application is imported, so that the
application imports the replacement.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from txgreenwsgi._configuration import HEAVY, OFFLOAD_FORM
from txgreenwsgi._server.errors import StartError
from txgreenwsgi.green import offloaded

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FunctionNotFound", "offload_names"]


class FunctionNotFound(StartError):
    """`--offload` names a function that does not exist."""


def offload_names(names: Sequence[str]) -> None:
    """Replace each named function with one that runs in the reactor's thread pool.

    Call from the main thread, outside tasks, before the application is imported.

    Raises:
        FunctionNotFound: there is no such function.
    """
    for name in names:
        if name == HEAVY:
            # Importing it installs a reactor, which twistd has chosen by now.
            from txgreenwsgi import monkey

            monkey.patch_heavy()
            continue
        owner, attribute = _find(name)
        function = getattr(owner, attribute)
        if isinstance(owner, type):
            # Preserve the kind: a static method must not become an ordinary one.
            inside = owner.__dict__.get(attribute, function)
            if isinstance(inside, (classmethod, staticmethod)):
                setattr(owner, attribute, type(inside)(offloaded(inside.__func__)))
                continue
        setattr(owner, attribute, offloaded(function))


def _find(name: str) -> tuple[object, str]:
    """Return the owner of the function (a module or class), and its attribute name."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        try:
            owner: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (
                module == error.name or module.startswith(error.name + ".")
            ):
                continue
            raise
        for part in parts[count:-1]:
            owner = getattr(owner, part, None)
        if not callable(getattr(owner, parts[-1], None)):
            raise FunctionNotFound(
                f"--offload {name!r}: {module} has no function "
                f"{'.'.join(parts[count:])}; give {OFFLOAD_FORM}"
            )
        return owner, parts[-1]
    raise FunctionNotFound(
        f"--offload {name!r}: there is no module {parts[0]}; give {OFFLOAD_FORM}, such "
        "as --offload myproject.reports.render"
    )
