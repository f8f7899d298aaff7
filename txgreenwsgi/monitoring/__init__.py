"""Records of finished requests, and the access log.

`records` defines the record that every observer receives; `accesslog` writes records to
a file. This package knows only records; it must never know the wire or the server.
"""

from txgreenwsgi.monitoring.accesslog import AccessLog
from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["AccessLog", "ExchangeRecord"]
