"""The application of the tests of promises: that of the restarts, and ways to fail.

`PROMISES_CODE` names a file that stands for new code: with `import`, `raise` or `hang`
in it, importing this module fails in that way; with `wait`, it lasts until the file
says something else.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .restart_app import app as restart_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Longer than any test.
FOREVER = 3600

if "PROMISES_CODE" in os.environ:
    _file = Path(os.environ["PROMISES_CODE"])
    while (_code := _file.read_text().strip()) == "wait":
        time.sleep(0.01)
    if _code == "import":
        importlib.import_module("a_module_that_does_not_exist")
    elif _code == "raise":
        time.sleep(0.5)
        raise ValueError("the new code is broken")
    elif _code == "hang":
        time.sleep(FOREVER)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as `restart_app`; "/hang" never returns from C and holds the GIL."""
    if environ["PATH_INFO"] == "/hang":
        _hang()
    return restart_app(environ, start_response)


def _hang() -> None:
    """Lock a mutex twice: no signal interrupts that, unlike `sleep`."""
    mutex = ctypes.create_string_buffer(256)  # zeros: PTHREAD_MUTEX_INITIALIZER
    library = ctypes.PyDLL(None)  # its functions are called with the GIL
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
