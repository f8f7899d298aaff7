"""What the tests of the server share: requests as bytes, and a case that sees logs.

It knows how requests look. It must never know what is right: that is in the tests.
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
    """A request as bytes; a Host field is added, and Content-Length with a body."""
    lines = [f"{method} {target} {version}", "Host: test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(target: str, body: bytes, *fields: str) -> bytes:
    """A POST with a body by length."""
    return get(target, *fields, method="POST", body=body)


def chunked(target: str, *chunks: bytes, trailers: bytes = b"") -> bytes:
    """A POST with a chunked body."""
    head = get(target, "Transfer-Encoding: chunked", method="POST")
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + body + b"0\r\n" + trailers + b"\r\n"


class WireTestCase(LeakCheckMixin, SynchronousTestCase):
    """A case with servers in memory that leave nothing behind, and their log."""

    def setUp(self) -> None:
        """Keep what is logged."""
        self.events: list[LogEvent] = []
        self.records: list[ExchangeRecord] = []
        observer: ILogObserver = self.events.append  # type: ignore[assignment]
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def logged(self, least: LogLevel = LogLevel.info) -> list[str]:
        """The lines that the server has logged, without those of less importance."""
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
        """A client of a server of its own."""
        return self.recorded(app, **settings).connect()

    def recorded(self, app: App, **settings: Any) -> MemoryServer:
        """A server whose records are kept in `self.records`."""
        return self.serve(app, observers=[self.records.append], **settings)

    def only(self, client: MemoryClient, method: str = "GET") -> Response:
        """The one response that the client has received."""
        responses = client.responses([method])
        self.assertEqual(len(responses), 1, client.received)
        return responses[0]

    def outcomes(self) -> list[tuple[int, str]]:
        """Status and outcome of each finished exchange."""
        return [(record.status, record.outcome) for record in self.records]
