"""The main function of a fork server: it imports the application, and forks workers.

It has no reactor. In each worker, one is installed after the fork. It knows the order
in which the parts of the process start.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, NoReturn, cast

from twisted.logger import Logger, globalLogBeginner, globalLogPublisher

from txgreenwsgi._launch.forkable import connections, obstacle
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._tls.stored import adopt_stored
from txgreenwsgi._twistd.server import app_loader
from txgreenwsgi._twistd.worker import (
    Preloaded,
    options_for,
    reason_for,
    report_failure,
    run_worker,
)
from txgreenwsgi._workers.boot import (
    LINK_FD,
    LOG_FD,
    PAGE_FD,
    STACKS_FD,
    TLS_FD,
    Boot,
)
from txgreenwsgi._workers.fork_loop import ForkLoop
from txgreenwsgi._workers.logs import LogSender

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import ILogObserver

__all__ = ["run"]

_log = Logger()

# Bound at import: `socket` is patched later.
_Socket = socket.socket


def run(message: Mapping[str, Any]) -> NoReturn:
    """Run a fork server, and in its children workers, until they end.

    Args:
        message: the start message of the master; see `Boot`.
    """
    boot = Boot.from_message(dict(message))
    for fd in (LINK_FD, LOG_FD, PAGE_FD, STACKS_FD):
        os.set_inheritable(fd, False)
    if boot.uses_tls:
        os.set_inheritable(TLS_FD, False)
        adopt_stored(TLS_FD)
    link = _Socket(fileno=LINK_FD)
    sender = LogSender(_Socket(fileno=LOG_FD), "fork server")
    observer = cast("ILogObserver", sender)
    try:
        # Before patching: the reactor must bind the originals. This installs none.
        importlib.import_module(boot.reactor)
        globalLogBeginner.beginLoggingTo([observer])
        preloaded = _preload(boot, sender)
    except BaseException as error:
        report_failure(link, reason_for(error))
        sender.finish()
        # The exit handlers of the application belong to workers.
        os._exit(1)
    loop = ForkLoop(link, (LINK_FD, LOG_FD, STACKS_FD))
    loop.send({"event": "preloaded"})
    request = loop.run()
    if request is None:
        sender.finish()
        os._exit(0)
    globalLogPublisher.removeObserver(observer)
    sender.forget()
    run_worker(Boot.from_message(dict(request)), preloaded)


def _preload(boot: Boot, sender: LogSender) -> Preloaded:
    """Import the application.

    Raises:
        Exception: it cannot be imported, or must not be forked.
    """
    options = options_for(boot)
    sender.set_levels(options.command.log_level)
    app = app_loader(options)()
    _close_django_connections()
    reason = obstacle()
    if reason:
        raise StartError(f"--preload is not possible: {reason}, or remove --preload")
    peers = connections({LINK_FD, LOG_FD, STACKS_FD, PAGE_FD})
    if peers:
        _log.warn(
            "the application has connections to {peers} at the end of its import: all "
            "workers share them, and mix their data. Open them in the first request, "
            "or close them at the end of the import",
            peers=", ".join(peers),
        )
    # Collections in the workers then write to none of these objects, whose memory
    # stays shared.
    gc.collect()
    gc.freeze()
    return Preloaded(options, app)


def _close_django_connections() -> None:
    """Close the database connections that a Django project has opened at import."""
    db: Any = sys.modules.get("django.db")
    conf: Any = sys.modules.get("django.conf")
    if db is not None and conf is not None and conf.settings.configured:
        db.connections.close_all()
