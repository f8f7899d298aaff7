"""The standard descriptors of a process that was started without some of them.

The next files that are opened would get the numbers 0 to 2: the reactor's own
descriptors, the log, a client. C code and child processes write to descriptor 2, and
twistd puts the null device in the place of all three when it becomes a daemon.

It knows descriptors. It must never know twistd.
"""

from __future__ import annotations

import os
import sys

from txgreenwsgi._wsgi.log_descriptor import is_null_device

__all__ = ["open_closed_descriptors"]

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed_descriptors() -> None:
    """Open the null device as each standard descriptor and stream that is closed.

    Call before other files are opened. A standard descriptor that belongs to another
    file by then stays there; its stream is the null device.
    """
    for fd in range(len(_STREAMS)):
        if not _is_open(fd):
            # The lowest free number, which is `fd`. Inheritable, as its original.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for fd, (name, mode) in enumerate(_STREAMS):
        if getattr(sys, f"__{name}__") is None:
            if is_null_device(fd):
                stream = open(fd, mode, closefd=False)  # noqa: SIM115
            else:
                stream = open(os.devnull, mode)  # noqa: SIM115
            setattr(sys, f"__{name}__", stream)
            if getattr(sys, name) is None:
                setattr(sys, name, stream)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
