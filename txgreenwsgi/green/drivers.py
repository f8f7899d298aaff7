"""What database drivers written in C call when they must wait.

It knows the drivers' hooks. It must never import a driver before it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

from . import _events
from ._place import here, may_park

__all__ = ["wait_for_psycopg2"]


def wait_for_psycopg2(connection: Any) -> None:
    """The wait callback of psycopg2 (`psycopg2.extensions.set_wait_callback`).

    May park; in the reactor greenlet and in threads it blocks.
    """
    extensions: Any = importlib.import_module("psycopg2.extensions")
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        if state == extensions.POLL_READ:
            direction = _events.READ
        elif state == extensions.POLL_WRITE:
            direction = _events.WRITE
        else:
            raise extensions.OperationalError(
                f"psycopg2 is in a state that cannot be waited on: {state!r}"
            )
        fd = connection.fileno()
        task = here()
        if task is None or not may_park():
            _events.block(fd, direction, None)
        elif not _events.is_ready(fd, direction):
            _events.wait_any(task, {fd: direction}, None, connection)
