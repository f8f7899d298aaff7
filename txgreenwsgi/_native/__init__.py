"""The choice between the compiled fast path and pure Python.

`lanes` is the compiled module `_lanes`, or `_pure`, which has the same interface and
leaves the classes of the server as they are. The choice is made at import:
`TXGREENWSGI_PURE=1` in the environment forces pure Python.

This file knows whether the extension module can be used. It must never know a request.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from . import _lanes as lanes  # noqa: TC004 - `_choose` sets it

__all__ = ["ACTIVE", "INTERFACE", "description", "lanes"]

#: The interface between the Python files and `_lanes`: an extension module that was
#: built for other files is not used.
INTERFACE: Final = 1

_VARIABLE: Final = "TXGREENWSGI_PURE"
_SOURCES: Final = (".pyx", ".pxd", ".pxi")


def _source_hash() -> str:
    """Return a hash of the source files, as the build writes it into the module.

    In a checkout they may be newer than the module. "" if they are not installed.
    """
    folder = os.path.dirname(__file__)
    names = [name for name in os.listdir(folder) if name.endswith(_SOURCES)]
    digest = hashlib.sha256()
    for name in sorted(names):
        with open(os.path.join(folder, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16] if names else ""


def _choose() -> str:
    """Set `lanes`; return the reason if it is not the compiled module."""
    global lanes
    reason = ""
    if os.environ.get(_VARIABLE, "") not in ("", "0"):
        reason = f"{_VARIABLE}={os.environ[_VARIABLE]}"
    else:
        try:
            from . import _lanes as lanes
        except ImportError as error:
            missing = getattr(error, "name", None) == f"{__name__}._lanes" or (
                "cannot import name '_lanes'" in str(error)
            )
            reason = "not built" if missing else f"not usable: {error}"
        else:
            built_from, source = getattr(lanes, "SOURCE_HASH", ""), _source_hash()
            if lanes.INTERFACE != INTERFACE:
                reason = "built for another version of txgreenwsgi: build it again"
            elif built_from and source and built_from != source:
                reason = "built from another _lanes.pyx: python -m tools.build_native"
            else:
                return ""
    from . import _pure

    globals()["lanes"] = _pure  # for mypy, it is the module above
    return reason


_reason: Final = _choose()

#: Whether requests take the compiled fast path.
ACTIVE: Final = not _reason


def description() -> str:
    """Return "compiled", or "pure Python" with the reason in brackets."""
    return "compiled" if ACTIVE else f"pure Python ({_reason})"
