"""The interfaces of the systems this server grew from.

Those that are true to WSGI, fdevent and suspend, are in every environ. The others
are adapters, each in a file of its own, that an application is wrapped in:

    from txgreenwsgi.origins import ngx
    application = ngx.adapt(application)

or that the command is told of: `twistd greenwsgi --app SPEC --origin ngx`.

This room knows tasks. It must never know connections.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import fdevent, suspend
from .pauses import take_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Application = Callable[..., Iterable[bytes]]

__all__ = ["EXTENSIONS", "NAMES", "UnknownOrigin", "adapt", "prepare", "take_turn"]

#: What every environ has.
EXTENSIONS: dict[str, Any] = {
    "x-wsgiorg.fdevent.readable": fdevent.readable,
    "x-wsgiorg.fdevent.timeout": fdevent.timeout,
    "x-wsgiorg.fdevent.writable": fdevent.writable,
    "x-wsgiorg.suspend": suspend.suspend,
    "x-wsgiorg.suspend_status": suspend.suspend_status,
}

#: The adapters, each a module of this package with a function `adapt`.
NAMES = ("awsgi", "meinheld", "ngx", "pause_output", "tornado", "uwsgi")


class UnknownOrigin(ValueError):
    """There is no adapter of that name."""


def _modules(names: Iterable[str]) -> list[Any]:
    modules = []
    for name in names:
        if name not in NAMES:
            raise UnknownOrigin(
                f"{name!r} is none of the origins: give {', '.join(NAMES[:-1])} or "
                f"{NAMES[-1]}"
            )
        modules.append(import_module(f"{__name__}.{name}"))
    return modules


def prepare(names: Iterable[str]) -> None:
    """Do what must be done before the application is imported. Never parks.

    Raises:
        UnknownOrigin: a name is none of `NAMES`.
    """
    for module in _modules(names):
        if hasattr(module, "prepare"):
            module.prepare()


def adapt(application: Application, names: Iterable[str]) -> Application:
    """The application with the interfaces of `names` in its environ. Never parks.

    Raises:
        UnknownOrigin: a name is none of `NAMES`.
    """
    for module in _modules(names):
        application = module.adapt(application)
    return application
