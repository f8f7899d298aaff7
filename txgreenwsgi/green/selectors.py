"""Green `selectors`: the standard classes on the green `select`."""

from __future__ import annotations

import selectors as _standard
from typing import TYPE_CHECKING, Any

from . import select as _green_select
from .mirror import run_again as _run_again

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


_mine = {name: value for name, value in globals().items() if name.startswith("__")}
_run_again("selectors", globals(), {"select": _green_select})
globals().update(_mine)
# The standard classes expect builtins, which are not bound as methods.
globals()["PollSelector"]._selector_cls = staticmethod(_green_select.poll)
globals()["SelectSelector"]._select = staticmethod(_green_select.select)
# Shared with the original, for `isinstance` checks and stored keys.
BaseSelector = _standard.BaseSelector
SelectorKey = _standard.SelectorKey
