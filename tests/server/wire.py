"""Requests as bytes, and a test case that sees records and log lines.

This file knows the format of requests. The expected results are in the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.logger import ILogObserver, LogEvent

    from txgreenwsgi.monitoring.records import ExchangeRecord
    from txgreenwsgi.testing import MemoryClient, MemoryServer, Response

    App = Callable[..., Iterable[bytes]]

__all__ = ["WireTestCase", "chunked", "get", "post"]


def get(
    target: str = "/",
    *fields: str,
    method: str = "GET",
    version: str = "HTTP/1.1",
    body: bytes = b"",
) -> bytes:
    """Return a request as bytes, with Host, and Content-Length if it has a body."""
    lines = [f"{method} {target} {version}", "Host: test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(target: str, body: bytes, *fields: str) -> bytes:
    """Return a POST request whose body has a Content-Length."""
    return get(target, *fields, method="POST", body=body)


def chunked(target: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    """Return a POST request with a chunked body."""
    head = get(target, "Transfer-Encoding: chunked", method="POST")
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + body + b"0\r\n" + trailers + b"\r\n"


class WireTestCase(LeakCheckMixin, SynchronousTestCase):
    """A case whose servers in memory are checked for leaks, with their log.

    Attributes:
        events: the log events so far.
        records: the records of finished exchanges so far.
    """

    def setUp(self) -> None:
        """Collect log events."""
        self.events: list[LogEvent] = []
        self.records: list[ExchangeRecord] = []
        observer: ILogObserver = self.events.append  # type: ignore[assignment]
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def logged(self, least: LogLevel = LogLevel.info) -> list[str]:
        """Return the log lines of the package of level `least` or above."""
        return [
            formatEvent(event)
            for event in self.events
            if event.get("log_namespace", "").startswith("txgreenwsgi")
            and event["log_level"] >= least
        ]

    def assert_logged(self, *parts: str, level: LogLevel = LogLevel.info) -> None:
        """Fail unless one line of that level or above has all of these parts."""
        lines = self.logged(level)
        if not any(all(part in line for part in parts) for line in lines):
            self.fail(f"no line with {parts} in {lines}")

    def connected(self, app: App, **settings: Any) -> MemoryClient:
        """Return a client of a new server."""
        return self.recorded(app, **settings).connect()

    def recorded(self, app: App, **settings: Any) -> MemoryServer:
        """Return a server whose records are kept in `self.records`."""
        return self.serve(app, observers=[self.records.append], **settings)

    def only(self, client: MemoryClient, method: str = "GET") -> Response:
        """Return the single response that the client has received."""
        responses = client.responses([method])
        self.assertEqual(len(responses), 1, client.received)
        return responses[0]

    def outcomes(self) -> list[tuple[int, str]]:
        """Return status and outcome of each finished exchange."""
        return [(record.status, record.outcome) for record in self.records]
