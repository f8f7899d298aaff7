"""Records of finished requests, and the access log.

`records` has the record that every observer gets; `accesslog` writes records to a
file. This package must never know the wire or the server: it sees records only.
"""

from txgreenwsgi.monitoring.accesslog import AccessLog
from txgreenwsgi.monitoring.records import ExchangeRecord

__all__ = ["AccessLog", "ExchangeRecord"]
