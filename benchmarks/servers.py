"""The servers that are compared, and the command that starts each.

This file knows words of command lines. It must never import a server.
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

#: The one that all others are compared with.
OURS = "txgreenwsgi"


@dataclass(frozen=True)
class Launch:
    """What a server is to serve, and where.

    Attributes:
        app: "package.module:name" of a WSGI application.
        port: of 127.0.0.1, and free.
        certificate: file of the certificate, where TLS is to be spoken.
        key: file of its private key.
    """

    app: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    @property
    def endpoint(self) -> str:
        """The same as a Twisted endpoint string."""
        where = f"{self.port}:interface=127.0.0.1"
        if self.certificate is None:
            return f"tcp:{where}"
        return f"ssl:{where}:privateKey={self.key}:certKey={self.certificate}"


@dataclass(frozen=True)
class Server:
    """One row of the table.

    Attributes:
        name: what the row is called.
        kind: ours, a peer, or a limit that no server is expected to reach.
        needs: the distributions that must be installed.
        command: from what is to be served to the words of a command.
        cannot: what it cannot do (see `Scenario.wants`), and why.
        why: what is special about it, for `--list`.
    """

    name: str
    kind: Literal["ours", "peer", "limit"]
    needs: tuple[str, ...]
    command: Callable[[Launch], list[str]]
    cannot: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def versions(self) -> str:
        """Name and version of each distribution it is made of.

        Raises:
            PackageNotFoundError: one of them is not installed.
        """
        return ", ".join(f"{name} {version(name)}" for name in self.needs)

    def missing(self) -> list[str]:
        """The distributions that it needs and that are not installed."""
        return [name for name in self.needs if not is_installed(name)]


def is_installed(distribution: str) -> bool:
    """Whether this Python has it."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _own_script(name: str) -> Callable[[Launch], list[str]]:
    """The command for a server that `serve.py` starts."""

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
        # As the peers: room for all, and nobody is sent away while we measure.
        *("--max-in-flight", str(MOST_CONNECTIONS)),
        *("--keep-alive", str(KEEP_ALIVE_SECONDS)),
    ]


def _ours(launch: Launch) -> list[str]:
    twistd = Path(sys.executable).with_name("twistd")
    return [str(twistd), "-n", "--pidfile=", *_green(launch)]


# What asyncio's reactor runs on is the loop that the policy makes.
_WITH_UVLOOP = (
    "import asyncio, uvloop; "
    "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy()); "
    "from twisted.scripts.twistd import run; run()"
)


def _ours_on_uvloop(launch: Launch) -> list[str]:
    words = [sys.executable, "-c", _WITH_UVLOOP, "-n", "--pidfile="]
    return [*words, "--reactor=asyncio", *_green(launch)]


def _gunicorn(launch: Launch) -> list[str]:
    words = [sys.executable, "-m", "gunicorn"]
    words += ["--workers", "1", "--worker-class", "gevent"]
    words += ["--worker-connections", str(MOST_CONNECTIONS)]
    words += ["--keep-alive", str(KEEP_ALIVE_SECONDS)]
    words += ["--bind", f"127.0.0.1:{launch.port}", "--log-level", "warning"]
    if launch.certificate is not None:
        words += ["--certfile", str(launch.certificate), "--keyfile", str(launch.key)]
    return [*words, launch.app]


def _granian(launch: Launch) -> list[str]:
    words = [sys.executable, "-m", "granian", "--interface", "wsgi"]
    words += ["--workers", "1", "--blocking-threads", "1", "--no-ws"]
    words += ["--host", "127.0.0.1", "--port", str(launch.port)]
    # Connections beyond this wait for one to close, by default at the 1024th.
    words += ["--backpressure", str(MOST_CONNECTIONS), "--log-level", "warning"]
    if launch.certificate is not None:
        words += ["--ssl-certificate", str(launch.certificate)]
        words += ["--ssl-keyfile", str(launch.key)]
    return [*words, launch.app]


_ONE_THREAD_EACH = "a request that sleeps holds a thread, and there are few"
_CANNED = "answers canned bytes whatever is asked"

SERVERS: tuple[Server, ...] = (
    Server(OURS, "ours", ("txgreenwsgi", "Twisted"), _ours),
    Server(
        "txgreenwsgi+uvloop",
        "ours",
        ("txgreenwsgi", "uvloop"),
        _ours_on_uvloop,
        why="twistd --reactor=asyncio, uvloop being the event loop policy",
    ),
    Server("gevent", "peer", ("gevent",), _own_script("gevent"), why="gevent.pywsgi"),
    Server(
        "gunicorn",
        "peer",
        ("gunicorn", "gevent"),
        _gunicorn,
        why="one gevent worker; its master process waits",
    ),
    Server("eventlet", "peer", ("eventlet",), _own_script("eventlet")),
    Server(
        "granian",
        "peer",
        ("granian",),
        _granian,
        {"sleep": _ONE_THREAD_EACH},
        why="in Rust; one worker, one blocking thread",
    ),
    Server(
        "bjoern",
        "peer",
        ("bjoern",),
        _own_script("bjoern"),
        {
            "sleep": "a request that sleeps holds the only thread",
            "tls": "has no TLS",
        },
        why="in C; one thread",
    ),
    Server(
        "waitress",
        "peer",
        ("waitress",),
        _own_script("waitress"),
        {"sleep": _ONE_THREAD_EACH, "tls": "has no TLS"},
        why="four threads",
    ),
    Server(
        "twist-web",
        "peer",
        ("Twisted",),
        _own_script("twist-web"),
        {"sleep": _ONE_THREAD_EACH},
        why="twist web --wsgi, its access log taken out",
    ),
    Server(
        "epoll-limit",
        "limit",
        (),
        _own_script("epoll"),
        {"application": _CANNED, "tls": "has no TLS"},
        why="a bare loop of CPython, " + _CANNED,
    ),
    Server(
        "twisted-limit",
        "limit",
        ("Twisted",),
        _own_script("twisted"),
        {"application": _CANNED},
        why="a protocol using transport.write, " + _CANNED,
    ),
)
