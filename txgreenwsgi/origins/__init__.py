"""The asynchronous WSGI interfaces of other servers.

The interfaces that fit into WSGI, fdevent and suspend, are in every environ. The other
ones are adapters, one module each. Wrap an application in them:

    from txgreenwsgi.origins import ngx
    application = ngx.adapt(application)

or name them on the command line: `twistd greenwsgi --app SPEC --origin ngx`.

This package knows tasks. It must never know connections.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from . import fdevent, suspend
from .pauses import take_turn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from _typeshed.wsgi import WSGIApplication

__all__ = ["EXTENSIONS", "NAMES", "UnknownOrigin", "adapt", "prepare", "take_turn"]

#: The keys that are in every environ, with their values.
EXTENSIONS: dict[str, object] = {
    "x-wsgiorg.fdevent.readable": fdevent.readable,
    "x-wsgiorg.fdevent.timeout": fdevent.timeout,
    "x-wsgiorg.fdevent.writable": fdevent.writable,
    "x-wsgiorg.suspend": suspend.suspend,
    "x-wsgiorg.suspend_status": suspend.suspend_status,
}

#: The names of the adapters, each a module of this package with a function `adapt`.
NAMES = (
    "awsgi",
    "gevent_websocket",
    "meinheld",
    "ngx",
    "pause_output",
    "tornado",
    "uwsgi",
)


class UnknownOrigin(ValueError):
    """An adapter name that is not in `NAMES`."""


def _modules(names: Iterable[str]) -> list[ModuleType]:
    modules = []
    for name in names:
        if name not in NAMES:
            raise UnknownOrigin(
                f"{name!r} is not an origin: use {', '.join(NAMES[:-1])} or {NAMES[-1]}"
            )
        modules.append(import_module(f"{__name__}.{name}"))
    return modules


def prepare(names: Iterable[str]) -> None:
    """Prepare the adapters, before the application is imported. Never parks.

    Raises:
        UnknownOrigin: a name is not in `NAMES`.
    """
    for module in _modules(names):
        if hasattr(module, "prepare"):
            module.prepare()


def adapt(application: WSGIApplication, names: Iterable[str]) -> WSGIApplication:
    """Return the application with the interfaces of `names` in its environ.

    Never parks.

    Raises:
        UnknownOrigin: a name is not in `NAMES`.
    """
    for module in _modules(names):
        application = module.adapt(application)
    return application
