"""Failures that a framework answers itself, so that they never reach the server.

Django and Flask turn an exception of a view into a response and send a signal. A
receiver adds the exception to the recent failures. It knows their signals. It must
never import a framework.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from txgreenwsgi._wsgi.errors import current_errors
from txgreenwsgi.monitoring.failures import failures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = ["note_framework_failures"]

#: The modules of the signal `got_request_exception`.
_MODULES: Final = ("django.core.signals", "flask.signals")


def note_framework_failures(modules: Mapping[str, ModuleType] | None = None) -> None:
    """Add failures of Django and Flask to the recent failures, if they are loaded.

    May be called again, when another one was loaded.

    Args:
        modules: the loaded modules; `sys.modules` by default.
    """
    loaded = sys.modules if modules is None else modules
    for name in _MODULES:
        signal: Any = getattr(loaded.get(name), "got_request_exception", None)
        if signal is not None:
            # Both kinds of signals ignore a receiver that is connected already.
            signal.connect(_note, weak=False)


def _note(sender: object, **details: Any) -> None:
    """Add the exception that is handled. Called by the framework in its handler."""
    error = details.get("exception") or sys.exc_info()[1]
    errors = current_errors.get()
    if error is None or errors is None:
        return  # outside of a request of this server
    method = path = ""
    request = details.get("request")
    if request is None:
        flask = sys.modules.get("flask")
        request = getattr(flask, "request", None)
    if request:
        method, path = str(request.method), str(request.path)
    failures.add(error, errors.request_id, method, path)
