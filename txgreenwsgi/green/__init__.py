"""The blocking parts of the standard library, cooperative: they park the task.

Each module here has the name and the contents of one of the standard library,
and may be imported directly: `from txgreenwsgi.green import socket`. To have
the libraries that you did not write use them, see `txgreenwsgi.monkey`.

One rule holds everywhere: in a task a call parks the task; anywhere else, in
the reactor greenlet, in a real thread, in the child of a fork, it does exactly
what the original does. Read `_place.py` first, then `_events.py` (descriptors),
`_locks.py` (threads and tasks that share a lock), `_sockets.py`.

This room knows the switching room and the standard library. It must never hear
of HTTP, of WSGI or of transports.
"""

from .offload import offload, offloaded

__all__ = ["offload", "offloaded"]
