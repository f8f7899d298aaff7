"""The line of the log that tells what was started, and where it is reached.

It knows names and numbers. It must never look anything up.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.logger import Logger

import txgreenwsgi
from txgreenwsgi import _native
from txgreenwsgi._workers.interface import MasterObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from txgreenwsgi._server.service import GreenService
    from txgreenwsgi._workers.interface import MasterControl, MasterStatus
    from txgreenwsgi.settings import Settings

__all__ = ["MasterAnnouncer", "announce", "announce_process", "threads_mode"]

_log = Logger()


def announce(
    app: str, urls: Sequence[str], settings: Settings, workers: Sequence[int] = ()
) -> None:
    """Log version, application, URLs, process ids and whether the server is compiled.

    Call when the application is imported and the ports are open.

    Args:
        app: the value of `--app`.
        urls: as `url_of` returns them.
        settings: of the server.
        workers: the process ids of the workers; empty if this process serves.
    """
    _log.info(
        "txgreenwsgi {version} serves {app} at {urls} ({processes}; {threads}; "
        "{fast_path})",
        version=txgreenwsgi.__version__,
        app=app,
        urls=" ".join(urls) or "no address",
        processes=_processes(workers),
        threads=threads_mode(settings),
        fast_path=_native.description(),
    )


def _processes(workers: Sequence[int]) -> str:
    if not workers:
        return f"pid {os.getpid()}"
    pids = " ".join(map(str, workers))
    if len(workers) == 1:
        return f"1 worker, pid {pids}, master {os.getpid()}"
    return f"{len(workers)} workers, pids {pids}, master {os.getpid()}"


def announce_process(
    app: str, settings: Settings, server: GreenService
) -> Callable[[], object]:
    """Return a function that announces a server when its ports are open.

    Call it when the application is imported.
    """

    def opened(all_open: bool) -> None:
        if all_open:
            announce(app, server.urls, settings)

    return lambda: server.opened().addCallback(opened)


class MasterAnnouncer(MasterObserver):
    """The observer of a master that announces it when all workers are ready.

    Args:
        app: the value of `--app`.
        settings: of the server.
        urls: returns the addresses of the server.
    """

    def __init__(
        self,
        app: str,
        settings: Settings,
        urls: Callable[[MasterStatus], Sequence[str]],
    ) -> None:
        self._app = app
        self._settings = settings
        self._urls = urls

    def attach(self, master: MasterControl) -> None:
        """Observe a master when it starts."""
        self._master = master
        master.observe(self)

    def ready(self) -> None:
        """Announce the server."""
        status = self._master.status()
        pids = [worker.pid for worker in status.workers if worker.state == "ready"]
        announce(self._app, self._urls(status), self._settings, pids)


def threads_mode(settings: Settings) -> str:
    """Return which requests run in threads, as a clause."""
    patterns = settings.threads_for
    if not patterns or patterns == ("none",):
        return "no requests in threads"
    at_most = f"at most {settings.threads}"
    if patterns == ("auto",):
        return f"blocking paths in threads, {at_most}"
    if "all" in patterns:
        return f"requests in threads, {at_most}"
    return f"threads for {', '.join(patterns)}, {at_most}"
