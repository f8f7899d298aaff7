"""Records of requests, for tests."""

from __future__ import annotations

from typing import Any

from txgreenwsgi.monitoring import ExchangeRecord

# 22 November 2026, 09:24:03.25 UTC
STARTED = 1795339443.25

FIELDS: dict[str, Any] = {
    "remote_addr": "192.0.2.1",
    "remote_port": "4321",
    "started": STARTED,
    "duration": 0.0123456,
    "method": "GET",
    "target": "/a?b=c%20d",
    "version": "HTTP/1.1",
    "status": 200,
    "bytes_sent": 512,
    "request_id": "4f2a",
    "referer": "http://example.net/",
    "user_agent": "Browser/1 (X; Y)",
    "outcome": "finished",
    "blocked": 0.3456789,
}


def record(**changed: Any) -> ExchangeRecord:
    """Return the record of an ordinary request, with some fields changed."""
    return ExchangeRecord(**{**FIELDS, **changed})
