"""The requests in flight of one process, for the control socket.

It knows the table of requests. It must never know how the answer is sent.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, TypedDict, cast

if TYPE_CHECKING:
    from txgreenwsgi._control.interface import RequestInformation
    from txgreenwsgi._serving.application_server import ApplicationServer

__all__ = ["WorkerDetails", "describe_requests"]


class WorkerDetails(TypedDict):
    """The requests in flight of one process, and its counters."""

    in_flight: list[RequestInformation]
    connections: int
    served: int


def describe_requests(server: ApplicationServer) -> WorkerDetails:
    """Return the requests in flight, the oldest first.

    Call from the reactor greenlet; never parks.
    """
    return {
        "in_flight": [
            cast("RequestInformation", asdict(row)) for row in server.requests()
        ],
        "connections": server.open_connections,
        "served": server.table.ended,
    }
