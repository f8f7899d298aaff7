"""The scenarios: an application and a load each.

This file must never know which server it measures.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from . import client
from .apps import AWAKE, HELLO
from .process import CannotMeasure, Process
from .wrk import count_requests

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCENARIOS", "Measured", "Scenario"]

_MIB = 1024 * 1024
# Number of connections opened before waiting for the server to catch up: fewer than
# the listen backlog of any server.
_BATCH = 250


@dataclass(frozen=True)
class Measured:
    """The result of one measurement.

    Attributes:
        figure: in the scenario's unit.
        remark: a note on the figure, or "".
        busy: CPU time of the server as a fraction of elapsed time; None for
            scenarios that do not measure time.
    """

    figure: float
    remark: str = ""
    busy: float | None = None

    def per_cpu(self) -> Measured:
        """Return the result per CPU second of the server instead of per second."""
        return replace(self, figure=self.figure / self.busy) if self.busy else self


@dataclass(frozen=True)
class Scenario:
    """One column of the table.

    Attributes:
        name: name in options and headings.
        title: description of the load in a few words.
        unit: unit of the figures.
        app: "package.module:name" of the application served.
        wants: features that the server must have: "application" (calls one), "tls",
            "sleep" (holds thousands of sleeping requests).
        needs: distribution that the application needs, or "".
        measure: measures a server for a number of seconds.
    """

    name: str
    title: str
    unit: str
    app: str
    measure: Callable[[Process, int], Measured]
    wants: tuple[str, ...] = ("application",)
    needs: str = ""

    @property
    def less_is_better(self) -> bool:
        """Whether lower figures are better."""
        return self.unit.startswith("KiB")

    @property
    def uses_wrk(self) -> bool:
        """Whether the program wrk is needed."""
        return self.unit == "requests/s"


def _wrk(
    process: Process,
    seconds: int,
    *,
    connections: int = 200,
    script: str = "",
    fields: tuple[str, ...] = (),
    tls: bool = False,
    post: bytes | None = None,
    expected: bytes | None = None,
) -> Measured:
    """Check one response, then let wrk count responses."""
    body = client.ask(process.port, "/", post, tls)
    if not body if expected is None else body != expected:
        raise CannotMeasure(f"answered {body!r:.40}")
    url = f"http{'s' if tls else ''}://127.0.0.1:{process.port}/"
    return _rate(
        process,
        lambda: count_requests(url, connections, seconds, script, fields),
    )


def _rate(
    process: Process, ask: Callable[[], client.Counted], scale: float = 1.0
) -> Measured:
    """Return the count per second, with the CPU time used."""
    before = process.cpu_seconds()
    counted = ask()
    used = process.cpu_seconds() - before
    return Measured(
        counted.count * scale / counted.seconds,
        counted.remark,
        used / counted.seconds,
    )


def _download(process: Process, seconds: int, tls: bool = False) -> Measured:
    client.download(process.port, 0, tls)  # warm-up
    return _rate(process, lambda: client.download(process.port, seconds, tls), 1e-6)


def _upload(process: Process, seconds: int, tls: bool = False) -> Measured:
    client.upload(process.port, 0, tls)
    return _rate(process, lambda: client.upload(process.port, seconds, tls), 1e-6)


def _handshakes(process: Process, seconds: int, resumed: bool) -> Measured:
    client.handshakes(process.port, 0, resumed)
    return _rate(process, lambda: client.handshakes(process.port, seconds, resumed))


def _chunks(process: Process, seconds: int) -> Measured:
    client.blocks(process.port, 0)
    return _rate(process, lambda: client.blocks(process.port, seconds))


def _need_files(count: int) -> None:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < count + 100:
        raise CannotMeasure(
            f"the limit of open files is {allowed}: raise it, ulimit -n {count + 100}"
        )


def _kib_each(before: int, after: int, count: int) -> Measured:
    return Measured((after - before) / count / 1024)


def _idle(process: Process, seconds: int, count: int, tls: bool = False) -> Measured:
    _need_files(count)
    client.ask(process.port, tls=tls)
    before = process.rss_bytes()
    with client.Crowd(process.port, tls) as crowd:
        for _ in range(count // _BATCH):
            new = crowd.grow(_BATCH)
            crowd.send(new, "/")
            crowd.read(new, HELLO)
        time.sleep(0.2)
        after = process.rss_bytes()
        # A second request proves that the server kept all of them open.
        for first in range(0, count, _BATCH):
            again = crowd.connections[first : first + _BATCH]
            crowd.send(again, "/")
            crowd.read(again, HELLO)
    return _kib_each(before, after, count)


def _asleep(process: Process, seconds: int, count: int) -> Measured:
    _need_files(count)
    client.ask(process.port, "/count")
    before = process.rss_bytes()
    # Long enough for the slowest server to accept all of them.
    until = time.time() + 3 + count / 1000
    with client.Crowd(process.port) as crowd:
        for _ in range(count // _BATCH):
            new = crowd.grow(_BATCH)
            crowd.send(new, f"/?until={until}")
            while (there := int(client.ask(process.port, "/count"))) < len(
                crowd.connections
            ):
                if time.time() > until - 0.5:
                    raise CannotMeasure(
                        f"only {there} of {count} requests were asleep in time"
                    )
                time.sleep(0.01)
        after = process.rss_bytes()
        crowd.read(crowd.connections, AWAKE)
    return _kib_each(before, after, count)


_POSTED = b"0123456789abcdef" * 64

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "hello",
        "one short line, 200 connections kept alive",
        "requests/s",
        "benchmarks.apps:hello",
        partial(_wrk, expected=HELLO),
        wants=(),
    ),
    Scenario(
        "browser",
        "the same with a browser's 12 fields; cookie and query differ each time",
        "requests/s",
        "benchmarks.apps:hello",
        partial(_wrk, script="browser.lua", expected=HELLO),
        wants=(),
    ),
    Scenario(
        "connect",
        "the same, with a connection for each request, 50 at once",
        "requests/s",
        "benchmarks.apps:hello",
        partial(_wrk, connections=50, fields=("Connection: close",), expected=HELLO),
        wants=(),
    ),
    Scenario(
        "post",
        "1 KiB posted and echoed, 200 connections",
        "requests/s",
        "benchmarks.apps:echo",
        partial(_wrk, script="post.lua", post=_POSTED, expected=_POSTED),
    ),
    Scenario(
        "flask",
        "JSON from Flask, 50 connections",
        "requests/s",
        "benchmarks.flask_app:app",
        partial(_wrk, connections=50),
        needs="Flask",
    ),
    Scenario(
        "django",
        "a table of 20 rows from a Django template, 50 connections",
        "requests/s",
        "benchmarks.django_app:app",
        partial(_wrk, connections=50),
        needs="Django",
    ),
    Scenario(
        "tls",
        "hello over TLS, 200 connections",
        "requests/s",
        "benchmarks.apps:hello",
        partial(_wrk, tls=True, expected=HELLO),
        wants=("tls",),
    ),
    Scenario(
        "tls-new",
        "a TLS connection with a new session for each request",
        "handshakes/s",
        "benchmarks.apps:hello",
        partial(_handshakes, resumed=False),
        wants=("tls",),
    ),
    Scenario(
        "tls-resumed",
        "the same, with the session of the connection before",
        "handshakes/s",
        "benchmarks.apps:hello",
        partial(_handshakes, resumed=True),
        wants=("tls",),
    ),
    Scenario(
        "tls-generator",
        "256 MiB yielded in blocks of 64 KiB, over TLS",
        "MB/s",
        "benchmarks.apps:generator",
        partial(_download, tls=True),
        wants=("application", "tls"),
    ),
    Scenario(
        "tls-file",
        "256 MiB by wsgi.file_wrapper, over TLS",
        "MB/s",
        "benchmarks.apps:file",
        partial(_download, tls=True),
        wants=("application", "tls"),
    ),
    Scenario(
        "tls-upload",
        "256 MiB posted, read in pieces of 64 KiB, over TLS",
        "MB/s",
        "benchmarks.apps:upload",
        partial(_upload, tls=True),
        wants=("application", "tls"),
    ),
    Scenario(
        "chunks",
        "20,000 blocks of 100 bytes, each yielded, in one response of unknown length",
        "blocks/s",
        "benchmarks.apps:chunks",
        _chunks,
    ),
    Scenario(
        "generator",
        "256 MiB yielded in blocks of 64 KiB",
        "MB/s",
        "benchmarks.apps:generator",
        _download,
    ),
    Scenario(
        "file",
        "256 MiB by wsgi.file_wrapper",
        "MB/s",
        "benchmarks.apps:file",
        _download,
    ),
    Scenario(
        "upload",
        "256 MiB posted, read in pieces of 64 KiB",
        "MB/s",
        "benchmarks.apps:upload",
        _upload,
    ),
    Scenario(
        "idle",
        "memory of each of 5,000 connections kept alive after a request",
        "KiB each",
        "benchmarks.apps:hello",
        partial(_idle, count=5000),
        wants=(),
    ),
    Scenario(
        "tls-idle",
        "memory of each of 500 idle connections with TLS",
        "KiB each",
        "benchmarks.apps:hello",
        partial(_idle, count=500, tls=True),
        wants=("tls",),
    ),
    Scenario(
        "asleep-5000",
        "memory of each of 5,000 requests asleep at once",
        "KiB each",
        "benchmarks.apps:asleep",
        partial(_asleep, count=5000),
        wants=("application", "sleep"),
    ),
    Scenario(
        "asleep-10000",
        "memory of each of 10,000 requests asleep at once",
        "KiB each",
        "benchmarks.apps:asleep",
        partial(_asleep, count=10_000),
        wants=("application", "sleep"),
    ),
)
