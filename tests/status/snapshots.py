"""Snapshots and a server for the tests of the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, succeed

from txgreenwsgi._control.interface import ControlError

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import SnapshotInformation

__all__ = ["HOSTILE", "FakeServer", "failure", "request", "snapshot", "worker"]

#: Text that must not become markup, or control a terminal.
HOSTILE = "<img src=x onerror=alert(1)>\"'&\x1b[2J\r\n\u202e"


def request(**more: Any) -> dict[str, Any]:
    """Return a request in flight."""
    return {
        "request_id": "1f6a-2",
        "method": "GET",
        "path": "/orders/7",
        "age": 3.25,
        "state": "parked",
        "waiting_on": "sleep(30)",
        "waiting_seconds": 2.5,
        "status": 0,
        "bytes_sent": 0,
        "remote_addr": "192.0.2.1",
        "user_agent": "",
        **more,
    }


def worker(number: int = 1, **more: Any) -> dict[str, Any]:
    """Return a worker."""
    return {
        "worker": number,
        "slot": number - 1,
        "pid": 4000 + number,
        "state": "ready",
        "age": 70.0,
        "requests": 1,
        "connections": 5,
        "served": 100,
        "lag": 0.002,
        "beat_age": 0.1,
        "rss": 50 << 20,
        "current": "",
        "in_flight": [request()],
        **more,
    }


def failure(**more: Any) -> dict[str, Any]:
    """Return a failure."""
    return {
        "failure_id": "ab12-1",
        "error": "ValueError: no such order",
        "place": "shop.py:12 in order",
        "count": 3,
        "first": 900.0,
        "last": 990.0,
        "request_id": "1f6a-1",
        "method": "POST",
        "path": "/orders",
        "traceback": "",
        "worker": 1,
        **more,
    }


def snapshot(**more: Any) -> SnapshotInformation:
    """Return a snapshot."""
    found = {
        "version": "0.1.0",
        "app": "shop:app",
        "pid": 4000,
        "age": 71.0,
        "listening": ["http://127.0.0.1:8080/"],
        "target": 1,
        "stopping": False,
        "reloading": False,
        "restarts": 0,
        "reloads": 0,
        "last_reload": None,
        "workers": [worker()],
        "time": 1000.0,
        "can_cancel": False,
        "queued": 0,
        "watched_seconds": 12.0,
        "routes": [
            {
                "method": "GET",
                "pattern": "/orders/*",
                "requests": 40,
                "failures": 2,
                "seconds": 8.0,
                "longest": 1.5,
                "durations": [],
                "mean": 0.2,
                "p95": 1.024,
            }
        ],
        "blocked": [
            {
                "filename": "/srv/shop/reports.py",
                "line": 88,
                "function": "totals",
                "kind": "",
                "blocks": 2,
                "seconds": 0.9,
                "longest": 0.6,
                "request": "GET /reports/7",
            }
        ],
        "failures": [failure()],
        **more,
    }
    return cast("SnapshotInformation", found)


class FakeServer:
    """A server whose answers the test gives.

    Attributes:
        found: the next snapshot.
        asked: the number of snapshots so far.
        calls: the other questions, with their arguments.
        later: if set, the Deferred of the next snapshot.
    """

    def __init__(self) -> None:
        self.found = snapshot()
        self.asked = 0
        self.calls: list[tuple[str, str]] = []
        self.later: Deferred[Any] | None = None

    def snapshot(self) -> Deferred[Any]:
        """Return a snapshot."""
        self.asked += 1
        return self.later or succeed(self.found)

    def status(self) -> Deferred[Any]:
        """Return the status."""
        return succeed(self.found)

    def stacks(self, of: str) -> Deferred[str]:
        """Return text, or fail."""
        self.calls.append(("stacks", of))
        if of == "1f6a-9":
            return fail(ControlError(f"there is no request {of} in flight"))
        return succeed(f"stack of {of}\n  {HOSTILE}")

    def failure(self, of: str) -> Deferred[Any]:
        """Return a failure."""
        self.calls.append(("failure", of))
        return succeed(failure(traceback=f"Traceback\n  {HOSTILE}", error=HOSTILE))

    def cancel(self, of: str) -> Deferred[str]:
        """Record it."""
        self.calls.append(("cancel", of))
        return succeed(of)

    def reload(self) -> Deferred[Any]:
        """Fail: unused."""
        raise NotImplementedError

    def scale(self, number: int, *, relative: bool) -> Deferred[int]:
        """Fail: unused."""
        raise NotImplementedError
