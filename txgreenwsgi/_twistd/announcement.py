"""The line of the log that tells what was started, and where it is reached.

It knows names and numbers. It must never look anything up.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.logger import Logger

import txgreenwsgi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txgreenwsgi.settings import Settings

__all__ = ["announce", "threads_mode"]

_log = Logger()


def announce(
    app: str, urls: Sequence[str], settings: Settings, workers: Sequence[int] = ()
) -> None:
    """Log version, application, URLs and process ids.

    Call when the application is imported and the ports are open.

    Args:
        app: the value of `--app`.
        urls: as `url_of` returns them.
        settings: of the server.
        workers: the process ids of the workers; empty if this process serves.
    """
    pids = " ".join(map(str, workers))
    _log.info(
        "txgreenwsgi {version} serves {app} at {urls} ({processes}; {threads})",
        version=txgreenwsgi.__version__,
        app=app,
        urls=" ".join(urls) or "no address",
        processes=(
            f"{len(workers)} worker{'s' if len(workers) > 1 else ''}, pids {pids}, "
            f"master {os.getpid()}"
            if workers
            else f"pid {os.getpid()}"
        ),
        threads=threads_mode(settings),
    )


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
