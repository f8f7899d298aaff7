"""The warning about a standard library that blocks because it is not patched.

It knows which modules are patched. It must never patch one.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from txgreenwsgi.green import patched

__all__ = ["PATCH_REFUSED", "SERVICE_REMEDY", "log_if_unpatched", "patch_remedy"]

_log = Logger()

#: The remedy for `service()`, which can patch by itself.
SERVICE_REMEDY: Final = (
    'Give service() patch="all" and the application by name, which it imports after '
    "patching; or call txgreenwsgi.monkey.patch_all() before the application is "
    'imported. patch="none" turns this warning off'
)


def patch_remedy(server: str) -> str:
    """Return the remedy for a class that is given an imported application.

    Args:
        server: the name of the class.
    """
    return (
        "Call txgreenwsgi.monkey.patch_all() before the application that is given to "
        f"{server} is imported. patch_all([]) turns this warning off"
    )


#: For `refuse_settings`: the option that a class cannot honour whose application is
#: imported already.
PATCH_REFUSED: Final = {
    "patch": "call txgreenwsgi.monkey.patch_all() before the application is imported"
}


def log_if_unpatched(remedy: str) -> None:
    """Log once per process that the standard library blocks, with the remedy.

    Call at the start of an embedded server. A no-op if any module is patched, and
    if the program has chosen to patch none (`patch="none"`).

    Args:
        remedy: the correction, as sentences without the last period.
    """
    if patched.is_chosen():
        return
    patched.choose()
    _log.warn(
        "The standard library is not patched: time.sleep(), sockets and locks block "
        "all requests while one waits. {remedy}",
        remedy=remedy,
    )
