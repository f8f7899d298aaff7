"""Cooperative versions of the blocking parts of the standard library.

Each module named after one of the standard library has its contents and may be imported
directly: `from txgreenwsgi.green import socket`. `txgreenwsgi.monkey` makes third-party
libraries use them. Other modules: `thread` and `semaphores` replace `_thread` and the C
part of `multiprocessing`; `drivers` makes database drivers cooperative; `offload` calls
functions in real threads; `program` runs a whole program in a task; `mirror` runs a
copy of a standard module on replaced imports.

In a task a blocking call parks the task; everywhere else (the reactor greenlet, a real
thread, the child of a fork) it does exactly what the original does. Read the modules of
`txgreenwsgi._parking` first, then `_sockets.py`.

This package knows the switching and parking packages and the standard library. It must
never know HTTP, WSGI or transports.
"""

from .offload import offload, offloaded

__all__ = ["offload", "offloaded"]
