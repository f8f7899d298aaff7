"""Green `selectors`: the standard classes on the green `select`."""

from __future__ import annotations

import selectors as _standard
from typing import TYPE_CHECKING

from . import select as _green_select
from ._mirror import run_again as _run_again

if TYPE_CHECKING:
    from selectors import *  # noqa: F403

_mine = {name: value for name, value in globals().items() if name.startswith("__")}
_run_again("selectors", globals(), {"select": _green_select})
globals().update(_mine)
# Functions, where the standard classes expect builtins, which are no methods.
PollSelector._selector_cls = staticmethod(_green_select.poll)  # type: ignore[attr-defined] # noqa: F405
SelectSelector._select = staticmethod(_green_select.select)  # type: ignore[attr-defined] # noqa: F405
# Code that asks `isinstance`, or keeps keys, knows these.
BaseSelector = _standard.BaseSelector
SelectorKey = _standard.SelectorKey
