"""The servers and the command lines that start them.

This file must never import a server.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .serve import KEEP_ALIVE_SECONDS, MOST_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OURS", "SERVERS", "Launch", "Server", "is_installed"]

#: The server that all ratios refer to.
OURS = "txgreenwsgi"


@dataclass(frozen=True)
class Launch:
    """The application and the port of a server.

    Attributes:
        app: "package.module:name" of a WSGI application.
        port: a free port of 127.0.0.1.
        certificate: certificate file for TLS; None for plain HTTP.
        key: private key file of the certificate.
        workers: number of worker processes.
    """

    app: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    workers: int = 1

    @property
    def endpoint(self) -> str:
        """The port and the certificate as a Twisted endpoint string."""
        where = f"{self.port}:interface=127.0.0.1"
        if self.certificate is None:
            return f"tcp:{where}"
        return f"https:{where}:cert={self.certificate}:key={self.key}"


@dataclass(frozen=True)
class Server:
    """One row of the table.

    Attributes:
        name: heading of the row.
        kind: "ours", "peer", or "limit" (an upper limit that no server can reach).
        needs: required distributions.
        command: builds the command line.
        cannot: missing features (see `Scenario.wants`) with the reasons.
        why: notes for `--list`.
    """

    name: str
    kind: Literal["ours", "peer", "limit"]
    needs: tuple[str, ...]
    command: Callable[[Launch], list[str]]
    cannot: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def versions(self) -> str:
        """Return name and version of each required distribution.

        Raises:
            PackageNotFoundError: a distribution is not installed.
        """
        return ", ".join(f"{name} {version(name)}" for name in self.needs)

    def missing(self) -> list[str]:
        """Return the required distributions that are not installed."""
        return [name for name in self.needs if not is_installed(name)]


def is_installed(distribution: str) -> bool:
    """Return whether this Python has the distribution."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _own_script(name: str) -> Callable[[Launch], list[str]]:
    """Return a builder of command lines for a server in `serve.py`."""

    def command(launch: Launch) -> list[str]:
        words = [sys.executable, "-m", "benchmarks.serve", name]
        words += [launch.app, str(launch.port)]
        if launch.certificate is not None:
            words += [str(launch.certificate), str(launch.key)]
        return words

    return command


def _green(launch: Launch) -> list[str]:
    return [
        "greenwsgi",
        *("--app", launch.app),
        *("--listen", launch.endpoint),
        # The limits of the other servers: no request is refused.
        *("--max-in-flight", str(MOST_CONNECTIONS)),
        *("--keep-alive", str(KEEP_ALIVE_SECONDS)),
        *(("--workers", str(launch.workers)) if launch.workers > 1 else ()),
    ]


def _ours(launch: Launch) -> list[str]:
    twistd = Path(sys.executable).with_name("twistd")
    return [str(twistd), "-n", "--pidfile=", *_green(launch)]


def _ours_pure(launch: Launch) -> list[str]:
    return ["env", "TXGREENWSGI_PURE=1", *_ours(launch)]


# The asyncio reactor runs on the event loop of the current policy.
_WITH_UVLOOP = (
    "import asyncio, uvloop; "
    "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy()); "
    "from twisted.scripts.twistd import run; run()"
)


def _ours_on_uvloop(launch: Launch) -> list[str]:
    words = [sys.executable, "-c", _WITH_UVLOOP, "-n", "--pidfile="]
    return [*words, "--reactor=asyncio", *_green(launch)]


def _gunicorn(launch: Launch, parser: str = "python") -> list[str]:
    words = [sys.executable, "-m", "gunicorn", "--http-parser", parser]
    words += ["--workers", str(launch.workers), "--worker-class", "gevent"]
    words += ["--worker-connections", str(MOST_CONNECTIONS)]
    words += ["--keep-alive", str(KEEP_ALIVE_SECONDS)]
    words += ["--bind", f"127.0.0.1:{launch.port}", "--log-level", "warning"]
    if launch.certificate is not None:
        words += ["--certfile", str(launch.certificate), "--keyfile", str(launch.key)]
    return [*words, launch.app]


def _gunicorn_h1c(launch: Launch) -> list[str]:
    return _gunicorn(launch, "fast")


def _granian(launch: Launch) -> list[str]:
    words = [sys.executable, "-m", "granian", "--interface", "wsgi"]
    words += ["--workers", str(launch.workers), "--blocking-threads", "1", "--no-ws"]
    words += ["--host", "127.0.0.1", "--port", str(launch.port)]
    # Further connections wait for one to close; the default is 1024.
    words += ["--backpressure", str(MOST_CONNECTIONS), "--log-level", "warning"]
    if launch.certificate is not None:
        words += ["--ssl-certificate", str(launch.certificate)]
        words += ["--ssl-keyfile", str(launch.key)]
    return [*words, launch.app]


_ONE_THREAD_EACH = "a sleeping request occupies one of few threads"
_CANNED = "answers every request with the same bytes"
_ONE_PROCESS = "is one process here"

SERVERS: tuple[Server, ...] = (
    Server(
        OURS,
        "ours",
        ("txgreenwsgi", "Twisted"),
        _ours,
        why="with its compiled fast path, if that is built",
    ),
    Server(
        "txgreenwsgi-pure",
        "ours",
        ("txgreenwsgi", "Twisted"),
        _ours_pure,
        why="the same in pure Python: TXGREENWSGI_PURE=1",
    ),
    Server(
        "txgreenwsgi+uvloop",
        "ours",
        ("txgreenwsgi", "uvloop"),
        _ours_on_uvloop,
        {"workers": _ONE_PROCESS},
        why="twistd --reactor=asyncio with uvloop's event loop policy",
    ),
    Server(
        "gevent",
        "peer",
        ("gevent",),
        _own_script("gevent"),
        {"workers": _ONE_PROCESS},
        why="gevent.pywsgi",
    ),
    Server(
        "gunicorn",
        "peer",
        ("gunicorn", "gevent"),
        _gunicorn,
        why="gevent workers, by default one; the parser in Python",
    ),
    Server(
        "gunicorn+h1c",
        "peer",
        ("gunicorn", "gevent", "gunicorn_h1c"),
        _gunicorn_h1c,
        why="the same with the parser in C",
    ),
    Server(
        "eventlet",
        "peer",
        ("eventlet",),
        _own_script("eventlet"),
        {"workers": _ONE_PROCESS},
    ),
    Server(
        "granian",
        "peer",
        ("granian",),
        _granian,
        {"sleep": _ONE_THREAD_EACH},
        why="in Rust; by default one worker, with one blocking thread",
    ),
    Server(
        "bjoern",
        "peer",
        ("bjoern",),
        _own_script("bjoern"),
        {
            "sleep": "a sleeping request occupies the only thread",
            "tls": "has no TLS",
            "workers": _ONE_PROCESS,
        },
        why="in C; one thread",
    ),
    Server(
        "freastal",
        "peer",
        ("freastal",),
        _own_script("freastal"),
        {
            "sleep": "a sleeping request occupies the only thread",
            "workers": _ONE_PROCESS,
        },
        why="in C, on libuv; one thread; its backlog and its limits are fixed",
    ),
    Server(
        "waitress",
        "peer",
        ("waitress",),
        _own_script("waitress"),
        {
            "sleep": _ONE_THREAD_EACH,
            "tls": "has no TLS",
            "workers": _ONE_PROCESS,
        },
        why="four threads",
    ),
    Server(
        "twist-web",
        "peer",
        ("Twisted",),
        _own_script("twist-web"),
        {"sleep": _ONE_THREAD_EACH, "workers": _ONE_PROCESS},
        why="twist web --wsgi without its access log",
    ),
    Server(
        "epoll-limit",
        "limit",
        (),
        _own_script("epoll"),
        {"application": _CANNED, "tls": "has no TLS", "workers": _ONE_PROCESS},
        why="a bare loop of CPython, " + _CANNED,
    ),
    Server(
        "twisted-limit",
        "limit",
        ("Twisted",),
        _own_script("twisted"),
        {"application": _CANNED, "workers": _ONE_PROCESS},
        why="a protocol that uses transport.write, " + _CANNED,
    ),
)
