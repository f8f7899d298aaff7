"""Records of finished requests, the access log, and blocked lines of code.

`records` defines the record that every observer receives; `accesslog` writes records to
a file; `blocked` adds up the time for which lines of code blocked the reactor;
`requests`, `routes` and `failures` describe a server while it runs. This package knows
only records and code lines; it must never know the wire or the server.
"""

from txgreenwsgi.monitoring.accesslog import AccessLog
from txgreenwsgi.monitoring.blocked import BlockedLine, blocked_lines
from txgreenwsgi.monitoring.failures import RecentFailure, recent_failures
from txgreenwsgi.monitoring.records import ExchangeRecord, Observer
from txgreenwsgi.monitoring.requests import (
    ProcessSnapshot,
    RequestInFlight,
    Requests,
)
from txgreenwsgi.monitoring.routes import RouteStatistics

__all__ = [
    "AccessLog",
    "BlockedLine",
    "ExchangeRecord",
    "Observer",
    "ProcessSnapshot",
    "RecentFailure",
    "RequestInFlight",
    "Requests",
    "RouteStatistics",
    "blocked_lines",
    "recent_failures",
]
