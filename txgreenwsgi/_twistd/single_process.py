"""A server without workers behind the control socket.

It knows one server. It must never know the socket.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

import txgreenwsgi
from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._control.memory import resident_bytes
from txgreenwsgi._workers.details import describe_requests
from txgreenwsgi._workers.stacks import describe_stacks

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import ReloadOutcome, ServerInformation
    from txgreenwsgi._server.service import GreenService

__all__ = ["SingleProcess"]


class SingleProcess:
    """See `txgreenwsgi._control.interface.Controlled`.

    Args:
        app: the value of `--app`.
        server: the server of this process.
    """

    def __init__(self, app: str, server: GreenService) -> None:
        self._app = app
        self._server = server
        self._started = monotonic()

    def status(self) -> Deferred[ServerInformation]:
        """Return the state of this process."""
        server = self._server.site.server
        details = describe_requests(server)
        stopping = bool(server.shutdown.stopping)
        age = monotonic() - self._started
        return succeed(
            {
                "version": txgreenwsgi.__version__,
                "app": self._app,
                "pid": os.getpid(),
                "age": age,
                "listening": list(self._server.urls),
                "target": 0,
                "stopping": stopping,
                "reloading": False,
                "restarts": 0,
                "reloads": 0,
                "last_reload": None,
                "workers": [
                    {
                        "worker": 1,
                        "slot": 0,
                        "pid": os.getpid(),
                        "state": "draining" if stopping else "ready",
                        "age": age,
                        "requests": len(details["in_flight"]),
                        "connections": details["connections"],
                        "served": details["served"],
                        "lag": None,
                        "beat_age": None,
                        "rss": resident_bytes(os.getpid()),
                        "current": "",
                        "in_flight": details["in_flight"],
                    }
                ],
            }
        )

    def reload(self) -> Deferred[ReloadOutcome]:
        """Refuse: the code of a process cannot be replaced."""
        return _refused("reload its code")

    def scale(self, number: int, *, relative: bool) -> Deferred[int]:
        """Refuse: there are no workers."""
        return _refused("be scaled")

    def stacks(self, of: str) -> Deferred[str]:
        """Return the stacks of this process, or of one of its requests."""
        server = self._server.site.server
        text = describe_stacks(server, "" if of == "1" else of)
        if not text:
            return fail(ControlError(f"there is no request {of} in flight"))
        return succeed(text)


def _refused(action: str) -> Deferred[Any]:
    return fail(
        ControlError(
            f"a server without workers cannot {action}: start it with --workers 1 or "
            "more, or restart it"
        )
    )
