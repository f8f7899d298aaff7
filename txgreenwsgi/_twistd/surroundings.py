"""The parts of the command around its service: the log's format, the control socket.

They are the same for a single process and for a master with workers.

It knows the order of a start. It must never know what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import IService, Service
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._server.errors import StartError
from txgreenwsgi._twistd.starting import installed_reactor, without_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from txgreenwsgi._control.sockets import ControlSocket
    from txgreenwsgi._twistd.log_observer import LogFormat

__all__ = ["Listener", "SurroundedService"]

_log = Logger()


class Listener(Protocol):
    """A listener beside those of the service. Called from the reactor greenlet."""

    def open(self, reactor: object) -> None:
        """Listen. A no-op if it listens already.

        Raises:
            StartError: it cannot be opened; the message has the remedy.
        """

    def close(self) -> Deferred[None]:
        """Stop listening.

        Returns:
            A Deferred that fires when that is done.
        """


@implementer(IService)
class SurroundedService(Service):
    """A service with its log format and its control socket.

    Args:
        service: what the command runs.
        log_format: the format of the log.
        control: opened before the application is imported, and closed when the
            service has stopped.
        reactor: by default, the reactor that is installed when the service starts.
        started: called when the service has started.
        before_control: fires when the control socket and the listeners may be opened:
            the last master may use them until then.
        listeners: opened first, and closed when the service has stopped.
    """

    def __init__(
        self,
        service: Service,
        log_format: LogFormat,
        control: ControlSocket,
        reactor: Any,
        started: Callable[[], object],
        before_control: Deferred[None],
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._before_control = before_control
        self._listeners = listeners
        self._service = service
        self._log_format = log_format
        self._control = control
        self._reactor = reactor
        self._started = started

    def setServiceParent(self, parent: object) -> None:
        """Join twistd's application, and choose the format of its log."""
        self._log_format.enter_application(parent)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Start what needs the privileges of the process."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._service.privilegedStartService()
        if self._before_control.called:
            self._listen(installed_reactor(self._reactor))

    def startService(self) -> None:
        """Open the control socket and the listeners, and start the service."""
        super().startService()  # type: ignore[no-untyped-call]
        reactor = installed_reactor(self._reactor)
        if self._before_control.called:
            self._listen(reactor)  # twist has no privileged start
            with without_traceback():
                try:
                    self._control.open(reactor)
                except ControlError as error:
                    raise StartError(str(error)) from None
        else:
            self._before_control.addCallback(self._open_late, reactor)
        if self._log_format.is_late:
            # First, because the service replaces the standard streams then.
            reactor.callWhenRunning(self._log_format.enter_log)
        self._service.startService()
        # Behind the handlers of signals: the line tells that SIGTERM may be sent.
        reactor.callWhenRunning(self._started)

    def _listen(self, reactor: Any) -> None:
        with without_traceback():
            for listener in self._listeners:
                listener.open(reactor)

    def _open_late(self, _: None, reactor: Any) -> None:
        if not self.running:
            return
        for listener in self._listeners:
            _open_or_log(listener, reactor)
        try:
            self._control.open(reactor)
        except ControlError as error:
            _log.error("no control socket: {error}", error=error)

    def stopService(self) -> Deferred[object]:
        """Stop the service, then close the control socket and the listeners.

        Returns:
            A Deferred that fires, or fails, as that of the service.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        stopped = maybeDeferred(self._service.stopService)
        return stopped.addBoth(self._close)

    def _close(self, result: object) -> Deferred[object]:
        closed = [listener.close() for listener in self._listeners]
        return gatherResults([*closed, self._control.close()]).addCallback(
            lambda _: result
        )


def _open_or_log(listener: Listener, reactor: object) -> None:
    """Open a listener; without it, the service still serves."""
    try:
        listener.open(reactor)
    except StartError as error:
        _log.error("{error}", error=error)
