"""Views that block the reactor in different ways, beside one that only waits."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SECONDS = 0.4

# PyDLL keeps the interpreter lock during the call.
_HOLDING = ctypes.PyDLL(None)


def spin() -> None:
    """Compute in Python, for longer on a busy machine."""
    end = time.thread_time() + SECONDS
    while time.thread_time() < end:
        pass


def scrypt() -> None:
    """Compute in C, without the interpreter lock."""
    hashlib.scrypt(b"x", salt=b"y", n=2**14, r=8, p=20, maxmem=2**28)


def sort() -> None:
    """Compute in C, with the interpreter lock."""
    count = 3_000_000
    # Strings of seven characters.
    data = ctypes.create_string_buffer(os.urandom(8 * count).replace(b"\0", b"\1"))
    ctypes.memset(ctypes.byref(data, 8 * count - 1), 0, 1)
    _HOLDING.qsort(data, ctypes.c_size_t(count), ctypes.c_size_t(8), _HOLDING.strcmp)


def debug() -> None:
    """Wait for the user of a debugger."""
    sys.stdin = os.fdopen(os.pipe()[0])  # nothing is ever typed
    breakpoint()


BLOCKING = {
    f"/{function.__name__}": function for function in (spin, scrypt, sort, debug)
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Call the function of the path; `/wait` parks, all others answer at once."""
    path = environ["PATH_INFO"]
    if path == "/wait":
        environ["txgreenwsgi.sleep"](2)
    elif path in BLOCKING:
        BLOCKING[path]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"short\n"]
