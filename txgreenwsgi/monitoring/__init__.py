"""Watching: what is known of finished requests, and who is told.

`records` has the one description of a finished request that every observer is
given; `accesslog` writes them to a file. Nothing here knows the wire or the
server: a record is all that crosses over.
"""

from txgreenwsgi.monitoring.accesslog import AccessLog
from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["AccessLog", "ExchangeRecord"]
