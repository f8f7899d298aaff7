"""The snapshots of the workers, added up for the status page and `txgreenwsgi top`.

Imported by a master, and by a single process with its first snapshot.

It knows the snapshots of workers. It must never know how they arrive.
"""

from __future__ import annotations

from collections import OrderedDict
from time import time
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import fail, succeed

from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._workers.details import describe_route
from txgreenwsgi.monitoring.requests import MOST_BLOCKED, MOST_SHOWN_ROUTES
from txgreenwsgi.monitoring.routes import RouteStatistics, merged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from twisted.internet.defer import Deferred

    from txgreenwsgi._control.interface import (
        BlockedInformation,
        FailureInformation,
        RouteInformation,
        ServerInformation,
        SnapshotInformation,
    )
    from txgreenwsgi._workers.details import WorkerSnapshot

__all__ = ["Collected"]

#: Maximum number of failures that are kept. Those of ended workers are among them.
MOST_FAILURES: Final = 100


class Collected:
    """The sums over workers, and the failures of all workers so far.

    Args:
        can_cancel: whether requests may be cancelled.

    Attributes:
        last_changes: by number of a worker that answered last time, the number of the
            last change of its failures.
    """

    def __init__(self, *, can_cancel: bool) -> None:
        self._can_cancel = can_cancel
        self.last_changes: dict[int, int] = {}
        self._failures: OrderedDict[str, FailureInformation] = OrderedDict()

    def snapshot(
        self, server: ServerInformation, snapshots: Mapping[int, WorkerSnapshot]
    ) -> SnapshotInformation:
        """Return the snapshot of a server.

        Args:
            server: its state; the lag and the number of requests of the workers that
                have answered are set.
            snapshots: those of the workers that have answered, by number.
        """
        for worker in server["workers"]:
            answer = snapshots.get(worker["worker"])
            if answer is not None:
                worker["lag"] = answer["lag"]
                worker["requests"] = answer["requests"]
        self.last_changes = {
            number: snapshot["last_change"] for number, snapshot in snapshots.items()
        }
        for number, snapshot in snapshots.items():
            self._take_failures(number, snapshot)
        found = list(snapshots.values())
        routes = merged(
            _route(route) for snapshot in found for route in snapshot["routes"]
        )
        return {
            **server,
            "time": time(),
            "can_cancel": self._can_cancel,
            "queued": sum(snapshot["queued"] for snapshot in found),
            "watched_seconds": max(
                (snapshot["watched_seconds"] for snapshot in found), default=0.0
            ),
            "routes": [describe_route(route) for route in routes[:MOST_SHOWN_ROUTES]],
            "blocked": _merged_lines(
                line for snapshot in found for line in snapshot["blocked"]
            )[:MOST_BLOCKED],
            "failures": [
                cast("FailureInformation", {**failure, "traceback": ""})
                for failure in sorted(
                    map(_as_one, self._groups()),
                    key=lambda failure: failure["last"],
                    reverse=True,
                )
            ],
        }

    def _groups(self) -> list[list[FailureInformation]]:
        """Return the equal failures of all workers."""
        groups: dict[tuple[str, str], list[FailureInformation]] = {}
        for failure in self._failures.values():
            kind = failure["error"].partition(":")[0]
            # A failure without a place has a path.
            place = failure["place"] or failure["path"]
            groups.setdefault((kind, place), []).append(failure)
        return list(groups.values())

    def _take_failures(self, number: int, snapshot: WorkerSnapshot) -> None:
        for failure in reversed(snapshot["failures"]):
            identity = failure["failure_id"]
            self._failures[identity] = cast(
                "FailureInformation", {**failure, "worker": number}
            )
            self._failures.move_to_end(identity)
        while len(self._failures) > MOST_FAILURES:
            self._failures.popitem(last=False)

    def failure(self, of: str) -> Deferred[FailureInformation]:
        """Return a failure with its traceback; see `Controlled.failure`."""
        for group in self._groups():
            if any(each["failure_id"] == of for each in group):
                return succeed(_as_one(group))
        return fail(ControlError(f"there is no recent failure {of}"))


def _as_one(group: list[FailureInformation]) -> FailureInformation:
    """Return equal failures of several workers as one, with the last traceback."""
    last = max(group, key=lambda failure: failure["last"])
    count = sum(failure["count"] for failure in group)
    first = min(failure["first"] for failure in group)
    return cast("FailureInformation", {**last, "count": count, "first": first})


def _route(route: RouteInformation) -> RouteStatistics:
    return RouteStatistics(
        method=route["method"],
        pattern=route["pattern"],
        requests=route["requests"],
        failures=route["failures"],
        seconds=route["seconds"],
        longest=route["longest"],
        durations=tuple(route["durations"]),
    )


def _merged_lines(lines: Iterable[BlockedInformation]) -> list[BlockedInformation]:
    """Return the lines of several processes as those of one, by time."""
    sums: dict[tuple[str, int, str], BlockedInformation] = {}
    for line in lines:
        key = line["filename"], line["line"], line["kind"]
        known = sums.get(key)
        if known is None:
            sums[key] = line.copy()
            continue
        known["blocks"] += line["blocks"]
        known["seconds"] += line["seconds"]
        known["longest"] = max(known["longest"], line["longest"])
    return sorted(sums.values(), key=lambda line: line["seconds"], reverse=True)
