"""The choice of standard-library modules to patch, by name.

It knows names, and imports `txgreenwsgi.monkey`, which installs a reactor, only to
patch. Patch after the reactor is chosen and before the application is imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from twisted.logger import Logger

from txgreenwsgi.green import patched

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PATCHABLE", "parse_patch", "patch", "patch_drivers"]

_log = Logger()

#: The names that may be given: those of `txgreenwsgi.monkey.MODULES`.
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


def parse_patch(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return the modules to patch.

    Args:
        names: "all", "none", or some of `PATCHABLE`: separated by commas, or as an
            iterable.

    Raises:
        ValueError: a module cannot be patched. The message names it.
    """
    if names == "all":
        return PATCHABLE
    if names == "none":
        return ()
    given = names.split(",") if isinstance(names, str) else names
    modules = tuple(name.strip() for name in given)
    for name in modules:
        if name not in PATCHABLE:
            raise ValueError(f"{name!r} cannot be patched")
    return modules


def patch(modules: tuple[str, ...]) -> None:
    """Patch these modules. Call from the main thread, outside tasks.

    Logs a warning if other modules are patched already, which cannot be undone.
    """
    patched.choose()
    others = [
        name
        for name in PATCHABLE
        if name not in modules
        and patched.is_patched("threading" if name == "thread" else name)
    ]
    if others:
        _log.warn(
            "the program has patched {others} earlier: these modules stay patched",
            others=", ".join(others),
        )
    if modules:
        from txgreenwsgi import monkey

        monkey.patch_all(modules)


def patch_drivers(modules: tuple[str, ...]) -> None:
    """Make the imported database drivers that wait in C use our sockets.

    Args:
        modules: the patched modules. A no-op without "socket".
    """
    if "socket" in modules and "psycopg2" in sys.modules:
        from txgreenwsgi import monkey

        monkey.patch_psycopg2()
