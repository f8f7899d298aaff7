"""The main function of a worker process.

It knows the order in which the parts of a worker start and stop.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from twisted.internet.defer import gatherResults
from twisted.logger import Logger, globalLogBeginner, globalLogPublisher
from twisted.python.usage import UsageError

from txgreenwsgi._server.adopted import expect_from_master
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._server.slot_service import SlotService
from txgreenwsgi._serving.monitor import monitor_of
from txgreenwsgi._switching.greenlets import hub_of
from txgreenwsgi._tls.stored import adopt_stored
from txgreenwsgi._twistd.options import Options
from txgreenwsgi._twistd.server import app_loader, make_server
from txgreenwsgi._workers.boot import LINK_FD, LOG_FD, PAGE_FD, STACKS_FD, TLS_FD, Boot
from txgreenwsgi._workers.logs import LogSender
from txgreenwsgi._workers.messages import encoded
from txgreenwsgi._workers.page import Record
from txgreenwsgi._workers.pulse import Limits, Pulse, note_requests
from txgreenwsgi._workers.tenancy import Tenancy
from txgreenwsgi._workers.worker_program import handle_stacks_signals
from txgreenwsgi.green import patched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.defer import Deferred
    from twisted.logger import ILogObserver

    from txgreenwsgi._twistd.development import DevelopmentLoader
    from txgreenwsgi._twistd.server import ServerParts
    from txgreenwsgi._wsgi.gateway import Application

__all__ = [
    "Preloaded",
    "options_for",
    "reason_for",
    "report_failure",
    "run",
    "run_worker",
]

_log = Logger()

# Bound at import: in a process that imports the application first, `socket` is patched.
_Socket = socket.socket

#: Maximum of `drain_idle` in development.
_DRAIN_IDLE_SECONDS: Final = 0.2


class Preloaded(NamedTuple):
    """What a fork server has imported."""

    options: Options
    app: Application


def run(message: Mapping[str, Any]) -> NoReturn:
    """Run a worker until it ends.

    Args:
        message: the start message of the master; see `Boot`.
    """
    run_worker(Boot.from_message(dict(message)))


def run_worker(boot: Boot, preloaded: Preloaded | None = None) -> NoReturn:
    """Run a worker until it ends.

    Args:
        boot: the start message of the master.
        preloaded: what the fork server has imported; None to import it here.
    """
    for fd in (LINK_FD, LOG_FD, PAGE_FD, STACKS_FD):
        os.set_inheritable(fd, False)
    # Again in the child of a fork server; an executed worker has done it earlier.
    handle_stacks_signals(boot.stacks_signal, boot.forced_stacks_signal)
    if boot.uses_tls:
        os.set_inheritable(TLS_FD, False)
        adopt_stored(TLS_FD)
    link = _Socket(fileno=LINK_FD)
    sender = LogSender(_Socket(fileno=LOG_FD), boot.name)
    observer = cast("ILogObserver", sender)
    try:
        importlib.import_module(boot.reactor).install()
        if preloaded is None:
            globalLogBeginner.beginLoggingTo([observer])
        else:
            globalLogPublisher.addObserver(observer)
        _serve(boot, link, sender, preloaded)
    except BaseException as error:
        report_failure(link, reason_for(error))
        sender.finish()
        sys.exit(1)
    sender.finish()
    sys.exit(0)


def _serve(
    boot: Boot, link: socket.socket, sender: LogSender, preloaded: Preloaded | None
) -> None:
    """Serve until the reactor stops.

    Raises:
        Exception: the worker cannot start.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    options = options_for(boot) if preloaded is None else preloaded.options
    sender.set_levels(options.command.log_level)
    load_app: Callable[[], Application] | None = None
    if preloaded is not None:
        app = preloaded.app
        load_app = lambda: app  # noqa: E731
    loader = _development_loader(boot, options) if boot.development else None
    if loader is not None:
        load_app = loader.load
    parts = make_server(options, reactor, SlotService, "", load_app)
    server = cast("SlotService", parts.server)
    server.site.server.environ["wsgi.multiprocess"] = not boot.development

    def reopen(stderr: int | None) -> None:
        if stderr is not None:
            os.dup2(stderr, 2)
        parts.signals.reopen_logs()

    tenancy = Tenancy(link, reactor, server, parts.watchdog, reopen, sender)
    parts.watchdog.on_signal = tenancy.leave
    record = Record(PAGE_FD, boot.record)
    # Called when the last request has ended.
    last_calls: list[Callable[[], Deferred[object]]] = []
    _start(parts, reactor, last_calls)
    application_server = server.site.server
    stop_notes = note_requests(record, application_server, hub_of(reactor))
    # The record belongs to this process alone.
    os.register_at_fork(after_in_child=stop_notes)
    command = options.command
    if command.metrics:
        # Here, because only this option needs it.
        from txgreenwsgi._twistd.metrics import start_in_worker

        last_calls += start_in_worker(
            PAGE_FD,
            boot.record,
            command.metrics_application or "",
            application_server,
            reactor,
            tenancy,
        )
    limits = Limits(
        max_requests=command.max_requests,
        max_requests_jitter=command.max_requests_jitter,
        max_lifetime=command.max_lifetime,
        max_rss=command.max_rss,
    )
    pulse = Pulse(record, reactor, application_server, limits, tenancy.recycle)
    server.mean_connections = record.mean_connections

    def ready() -> None:
        if application_server.settings.blocked_after:
            monitor = monitor_of(hub_of(reactor))
            if monitor is not None:
                monitor.on_block = record.note_block
        pulse.start()
        tenancy.ready()

    reactor.callWhenRunning(ready)
    if loader is not None:
        reactor.callWhenRunning(loader.report, tenancy.send, reactor)
    reactor.run()


def _development_loader(boot: Boot, options: Options) -> DevelopmentLoader:
    """Return the loader of the application, and adapt the process to development."""
    # Here, because only `--reload` needs it.
    from txgreenwsgi._twistd.development import DevelopmentLoader, use_terminal

    # A browser keeps idle connections, and would delay each restart.
    idle = min(options.settings.drain_idle, _DRAIN_IDLE_SECONDS)
    options.settings = replace(options.settings, drain_idle=idle)
    use_terminal()
    files = [] if options.command.config is None else [options.command.config]
    return DevelopmentLoader(
        app_loader(options), boot.failure, options.command.chdir, files
    )


def _start(
    parts: ServerParts,
    reactor: Any,
    last_calls: Sequence[Callable[[], Deferred[object]]],
) -> None:
    service: Any = parts.service

    def stop() -> Deferred[object]:
        stopped: Deferred[object] = service.stopService()
        return stopped.addBoth(finish)

    def finish(result: object) -> Deferred[object]:
        called = gatherResults([call() for call in last_calls])
        return called.addCallback(lambda _: result)

    reactor.addSystemEventTrigger("before", "shutdown", stop)
    service.privilegedStartService()
    service.startService()


def options_for(boot: Boot) -> Options:
    """Return the options, from the command line, the environment and the file.

    Raises:
        UsageError: they are invalid.
    """
    expect_from_master(boot.listen)
    patched.choose()
    options = Options()
    parent: Any = boot.parent
    options.parent = parent
    with _directory(boot.directory):
        options.parseOptions(boot.arguments)
    _check_listen(options.command.listen, boot.listen)
    return options


def _check_listen(own: Sequence[str], of_master: Sequence[str]) -> None:
    """Check that the endpoints are those of the master, which hands sockets over.

    Raises:
        StartError: the configuration file has others now.
    """
    if list(own) == list(of_master):
        return
    changes = [f"{text!r} is new" for text in own if text not in of_master]
    changes += [f"{text!r} is missing" for text in of_master if text not in own]
    raise StartError(
        f"--listen has changed ({', '.join(changes) or 'in order'}): a reload keeps "
        "the sockets of the master; send it SIGUSR2, or restart the server"
    )


@contextlib.contextmanager
def _directory(path: str) -> Any:
    """Change to the directory in which the master has parsed its options."""
    try:
        before = os.getcwd()
    except FileNotFoundError:
        # A deployment has removed it, and may have made another one at its path.
        if path:
            with contextlib.suppress(OSError):
                os.chdir(path)
        yield
        return
    if not path or path == before:
        yield
        return
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def reason_for(error: BaseException) -> str:
    """Return why a worker cannot start: a message, or a traceback."""
    if isinstance(error, UsageError):
        return str(error)
    # If a module exits at import, the traceback shows the place.
    if isinstance(error, StartError) and not isinstance(error.__cause__, SystemExit):
        return str(error)
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return "".join(lines).rstrip()


def report_failure(link: socket.socket, reason: str) -> None:
    """Tell the master why the worker cannot start."""
    message = encoded({"event": "failed", "reason": reason})
    with contextlib.suppress(OSError):  # the master has ended
        link.setblocking(True)
        link.sendall(message)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
