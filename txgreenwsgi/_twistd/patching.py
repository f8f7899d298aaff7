"""`--patch` and `--offload`: what is done to the library before the app is imported.

It knows names. It must be called after the reactor is installed, and before the
application is imported.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from txgreenwsgi.green import offloaded

__all__ = [
    "OFFLOAD_FORM",
    "PATCHABLE",
    "NotFound",
    "offload_names",
    "parse_patch",
    "patch",
    "patch_drivers",
]

#: What `--patch LIST` may name, as `txgreenwsgi.monkey.MODULES` does. (To import
#: that is to import the reactor.)
PATCHABLE = (
    "time",
    "os",
    "thread",
    "queue",
    "select",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
    "signal",
)
OFFLOAD_FORM = "package.module.function"


class NotFound(Exception):
    """`--offload` names something that is not there."""


def parse_patch(text: str) -> tuple[str, ...]:
    """The modules that `all`, `none` or a list with commas names.

    Raises:
        ValueError: one that cannot be patched; the message names it.
    """
    if text == "all":
        return PATCHABLE
    if text == "none":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PATCHABLE:
            raise ValueError(f"{name!r} cannot be patched")
    return names


def patch(names: tuple[str, ...]) -> None:
    """Patch the standard library's modules of these names."""
    if names:
        from txgreenwsgi import monkey

        monkey.patch_all(names)


def patch_drivers(names: tuple[str, ...]) -> None:
    """Have the drivers written in C that are imported by now wait by our sockets."""
    if "socket" in names and "psycopg2" in sys.modules:
        from txgreenwsgi import monkey

        monkey.patch_psycopg2()


def offload_names(names: list[str]) -> None:
    """Have the functions of these names called in the reactor's thread pool.

    Raises:
        NotFound: there is no such function; the message says what there is.
    """
    for name in names:
        owner, attribute = _find(name)
        function = getattr(owner, attribute)
        if isinstance(owner, type):
            # As the class has it: a static method is not to become a plain one.
            inside = owner.__dict__.get(attribute, function)
            if isinstance(inside, (classmethod, staticmethod)):
                setattr(owner, attribute, type(inside)(offloaded(inside.__func__)))
                continue
        setattr(owner, attribute, offloaded(function))


def _find(name: str) -> tuple[Any, str]:
    """The module or class that has `name`, and what it is called there."""
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
            raise NotFound(f"--offload {name!r}: {module} has no such function")
        return owner, parts[-1]
    raise NotFound(
        f"--offload {name!r} names no function: give {OFFLOAD_FORM}, for instance "
        "--offload myproject.reports.render"
    )
