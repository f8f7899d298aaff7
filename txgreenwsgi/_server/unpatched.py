"""The warning about a standard library that blocks because it is not patched.

It knows which modules are patched. It must never patch one.
"""

from __future__ import annotations

from twisted.logger import Logger

from txgreenwsgi.green import patched

__all__ = ["log_if_unpatched"]

_log = Logger()


def log_if_unpatched() -> None:
    """Warn once per process that the standard library blocks; give the remedy.

    Call at the start of an embedded server. A no-op if any module is patched, or if
    the program has chosen to patch none (`patch="none"`).
    """
    if patched.is_chosen():
        return
    patched.choose()
    _log.warn(
        "The standard library is not patched: time.sleep(), sockets and locks block "
        "all requests while one waits. Call txgreenwsgi.monkey.patch_all() before the "
        "application is imported, or patch_all([]) if it does not need it; "
        'txgreenwsgi.service() also takes patch="all" or "none"'
    )
