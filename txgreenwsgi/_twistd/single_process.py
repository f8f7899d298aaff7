"""A server without workers behind the control socket.

It knows one server. It must never know the socket.
"""

from __future__ import annotations

import os
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

import txgreenwsgi
from txgreenwsgi._control.interface import CANCEL_REFUSED, ControlError
from txgreenwsgi._control.memory import resident_bytes
from txgreenwsgi._workers.details import describe_requests, describe_snapshot
from txgreenwsgi._workers.stacks import describe_stacks

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import (
        FailureInformation,
        ReloadOutcome,
        ServerInformation,
        SnapshotInformation,
    )
    from txgreenwsgi._server.service import GreenService
    from txgreenwsgi._twistd.collected import Collected
    from txgreenwsgi._workers.details import WorkerDetails

__all__ = ["SingleProcess"]


class SingleProcess:
    """See `txgreenwsgi._control.interface.Controlled`.

    Args:
        app: the value of `--app`.
        server: the server of this process.
        can_cancel: whether requests may be cancelled.
    """

    def __init__(
        self, app: str, server: GreenService, *, can_cancel: bool = False
    ) -> None:
        self._app = app
        self._server = server
        self._can_cancel = can_cancel
        self._started = monotonic()

    @cached_property
    def _collected(self) -> Collected:
        # Here, because few servers need these modules.
        from txgreenwsgi._twistd.collected import Collected

        return Collected(can_cancel=self._can_cancel)

    def status(self) -> Deferred[ServerInformation]:
        """Return the state of this process."""
        return succeed(self._information(describe_requests(self._server.site.server)))

    def snapshot(self) -> Deferred[SnapshotInformation]:
        """Return the same with what this process collects."""
        known_change = self._collected.last_changes.get(1, 0)
        snapshot = describe_snapshot(self._server.site.server, known_change)
        information = self._information(snapshot)
        return succeed(self._collected.snapshot(information, {1: snapshot}))

    def _information(self, details: WorkerDetails) -> ServerInformation:
        stopping = bool(self._server.site.server.shutdown.stopping)
        age = monotonic() - self._started
        return {
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
            return fail(_no_request(of))
        return succeed(text)

    def failure(self, of: str) -> Deferred[FailureInformation]:
        """Return a failure with its traceback."""
        return self._collected.failure(of)

    def cancel(self, of: str) -> Deferred[str]:
        """Raise `Cancelled` in a request."""
        if not self._can_cancel:
            return fail(ControlError(CANCEL_REFUSED))
        try:
            self._server.site.server.live.cancel(of)
        except LookupError:
            return fail(_no_request(of))
        return succeed(of)


def _no_request(of: str) -> ControlError:
    return ControlError(f"there is no request {of} in flight")


def _refused(action: str) -> Deferred[Any]:
    return fail(
        ControlError(
            f"a server without workers cannot {action}: start it with --workers 1 or "
            "more, or restart it"
        )
    )
