"""The worker's side of the link: it serves its slot until the master ends it.

It knows the messages and the service of the worker. It must never know options.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from .details import describe_requests, describe_snapshot
from .link import Link
from .messages import close_descriptors
from .stacks import describe_stacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from txgreenwsgi._server.slot_service import SlotService

    from .logs import LogSender
    from .messages import Message

__all__ = ["Ending", "Tenancy"]

_log = Logger()

# Bound at import: the application patches `socket` later.
_Socket = socket.socket

#: Interval between two attempts to send log lines that the master did not accept.
_FLUSH_SECONDS = 0.25

#: Interval between two looks at messages that are being sent, and their number.
_SENT_SECONDS = 0.02
_SENT_ATTEMPTS = 50

#: Time for the master to answer a worker that leaves.
_ANSWER_SECONDS = 2.0


class Ending(Protocol):
    """The functions that end the process; those of the watchdog."""

    def request_stop(self, reason: str) -> None:
        """Begin a graceful shutdown. A no-op if one has begun."""

    def end_grace_period(self, reason: str) -> None:
        """End the grace period of the shutdown."""


class Tenancy:
    """The life of a worker.

    Args:
        connected: the socket of the link.
        reactor: the installed reactor.
        server: the service of the worker.
        ending: ends the process.
        reopen: reopens the logs; gets a descriptor of the master's standard error, or
            None.
        log: sends log lines to the master.

    Attributes:
        actions: functions for further messages of the master, by their action.
    """

    def __init__(
        self,
        connected: socket.socket,
        reactor: Any,
        server: SlotService,
        ending: Ending,
        reopen: Callable[[int | None], object],
        log: LogSender,
    ) -> None:
        self._server = server
        self._ending = ending
        self._reopen = reopen
        self._log = log
        self._reactor = reactor
        self._told_to_wait = False
        self.actions: dict[str, Callable[[Message], object]] = {}
        self._link = Link(connected, reactor, self._received, self._lost)
        self._flushing = task.LoopingCall(log.flush)
        self._flushing.clock = reactor

    def ready(self) -> None:
        """Report that the worker can serve. Call when the reactor runs."""
        self._flushing.start(_FLUSH_SECONDS)
        self._link.send({"event": "ready"})

    def send(self, message: Message) -> None:
        """Send another message to the master."""
        self._link.send(message)

    def flushed(self) -> Deferred[None]:
        """Return a Deferred that fires when all messages are sent, or in a second."""
        done: Deferred[None] = Deferred()

        def look(attempts: int) -> None:
            if self._link.is_sending and attempts:
                self._reactor.callLater(_SENT_SECONDS, look, attempts - 1)
            else:
                done.callback(None)

        look(_SENT_ATTEMPTS)
        return done

    def leave(self, reason: str) -> bool:
        """Ask the master to replace this worker, and to drain it.

        A service manager sends SIGTERM to all processes, so the master may be about to
        stop too: it decides. If it does not answer, the worker drains by itself.

        Returns:
            True: `Ending.request_stop` is called later.
        """
        self._link.send({"event": "leaving", "reason": reason})
        self._reactor.callLater(_ANSWER_SECONDS, self._unanswered, reason)
        return True

    def recycle(self, reason: str) -> None:
        """Ask the master for a successor; this worker serves until it is ready."""
        self._link.send({"event": "recycle", "reason": reason})

    def _unanswered(self, reason: str) -> None:
        if not self._told_to_wait:
            self._ending.request_stop(reason)

    def _received(self, message: Message, descriptors: list[int]) -> None:
        action = message["do"]
        if action == "adopt":
            sockets = {
                index: _Socket(fileno=fd)
                for index, fd in zip(message["listeners"], descriptors, strict=True)
            }
            self._server.adopt(message["slot"], sockets, message["shared"])
        elif action == "release":
            self._server.release(message["slot"])
        elif action == "poll":
            self._server.poll_shared()
        elif action == "unready":
            self._told_to_wait = True
            self._server.site.server.unready = "the server is about to stop"
        elif action == "drain":
            self._server.leaves_backlog = not message["final"]
            self._ending.request_stop("the master")
        elif action == "cut short":
            self._ending.end_grace_period("the master")
        elif action == "stacks":
            self._link.send(
                {
                    "event": "stacks",
                    "question": message["question"],
                    "text": describe_stacks(
                        self._server.site.server, message["request"]
                    ),
                }
            )
        elif action in ("details", "snapshot", "cancel"):
            self._link.send(
                {
                    "event": "details",
                    "question": message["question"],
                    "details": self._details(action, message),
                }
            )
        elif action in self.actions:
            self.actions[action](message)
        elif action == "reopen":
            self._reopen(descriptors[0] if descriptors else None)
            close_descriptors(descriptors)
        else:
            _log.warn("unknown message of the master: {action}", action=action)

    def _details(self, action: str, message: Message) -> object:
        """Return the answer to a question."""
        server = self._server.site.server
        if action == "details":
            return describe_requests(server)
        if action == "snapshot":
            return describe_snapshot(server, message["known_change"])
        try:
            server.live.cancel(message["request"])
        except LookupError:
            return False
        return True

    def _lost(self) -> None:
        """Drain: the master has ended."""
        # Its sockets are closed with those of the workers.
        self._server.leaves_backlog = False
        _log.warn("the master has ended: draining")
        self._ending.request_stop("the end of the master")
