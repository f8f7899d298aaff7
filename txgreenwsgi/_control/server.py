"""The server side of the control socket.

A connection carries any number of requests, one at a time. Call all of it from the
reactor greenlet.

It knows JSON lines. It must never know how a command is carried out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin

from .interface import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from .interface import Controlled

__all__ = ["ControlFactory"]

_log = Logger()

#: Maximum number of bytes of a request.
_LINE_BYTES: Final = 16384

#: Time for a client to send its next request.
IDLE_SECONDS: Final = 30.0

#: Maximum number of connections at a time.
MAX_CONNECTIONS: Final = 64


class _Command(NamedTuple):
    """A command: its arguments, and the function that carries it out."""

    arguments: dict[str, type]
    function: Callable[..., Deferred[Any]]


def _commands(controlled: Controlled) -> dict[str, _Command]:
    return {
        "status": _Command({}, controlled.status),
        "reload": _Command({}, controlled.reload),
        "scale": _Command({"number": int, "relative": bool}, controlled.scale),
        "stacks": _Command({"of": str}, controlled.stacks),
        "snapshot": _Command({}, controlled.snapshot),
        "failure": _Command({"of": str}, controlled.failure),
        "cancel": _Command({"of": str}, controlled.cancel),
    }


class ControlFactory(Factory):
    """Answers requests by the functions of a server.

    Args:
        controlled: carries commands out.
    """

    noisy = False

    def __init__(self, controlled: Controlled) -> None:
        self.commands = _commands(controlled)
        self.connections = 0

    def buildProtocol(self, addr: IAddress | None) -> _Conversation | None:
        """Return the protocol of a connection; None to close it."""
        if self.connections >= MAX_CONNECTIONS:
            return None
        return _Conversation(self)


class _Conversation(LineOnlyReceiver, TimeoutMixin):
    """One connection."""

    delimiter = b"\n"
    MAX_LENGTH = _LINE_BYTES

    def __init__(self, control: ControlFactory) -> None:
        self._control = control
        self._waiting: Deferred[Any] | None = None
        self._is_open = False

    def connectionMade(self) -> None:
        """Wait for a request."""
        self._control.connections += 1
        self._is_open = True
        self.setTimeout(IDLE_SECONDS)  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget the client. A command that has begun is carried out."""
        self._control.connections -= 1
        self._is_open = False
        self.setTimeout(None)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        """Carry out one command."""
        if self._waiting is not None:
            self._refuse("the answer to the last request must be awaited")
            self._close()
            return
        try:
            waiting = self._begin(line)
        except ControlError as error:
            self._refuse(str(error))
            return
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self._waiting = waiting
        waiting.addCallbacks(self._answer, self._failed)
        waiting.addBoth(self._wait_again)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a request that is too long."""
        self._refuse(f"a request has at most {_LINE_BYTES} bytes")
        self._close()

    def _begin(self, line: bytes) -> Deferred[Any]:
        """Begin to carry out a request.

        Raises:
            ControlError: the request is invalid.
        """
        try:
            request: Any = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise ControlError("a request is a JSON object on one line")
        name = request.pop("command", None)
        command = self._control.commands.get(name) if isinstance(name, str) else None
        if command is None:
            known = ", ".join(self._control.commands)
            raise ControlError(f"{name!r} is not a command: the commands are {known}")
        if {key: type(value) for key, value in request.items()} != command.arguments:
            form = ", ".join(
                f"{key}: {kind.__name__}" for key, kind in command.arguments.items()
            )
            raise ControlError(
                f"the arguments of {name} are {form or 'none'}: {request!r:.100}"
            )
        return command.function(**request)

    def _answer(self, result: object) -> None:
        self._send({"ok": True, "result": result})

    def _failed(self, failure: Failure) -> None:
        if failure.check(ControlError):
            self._refuse(str(failure.value))
            return
        _log.failure("a command of the control socket failed", failure)
        self._refuse(f"the command failed ({failure.getErrorMessage()}); see the log")

    def _wait_again(self, _: object) -> None:
        self._waiting = None
        if self._is_open:
            self.setTimeout(IDLE_SECONDS)  # type: ignore[no-untyped-call]

    def _refuse(self, reason: str) -> None:
        self._send({"ok": False, "error": reason})

    def _send(self, answer: dict[str, object]) -> None:
        if self._is_open:
            line = json.dumps(answer).encode("ascii")
            self.sendLine(line)  # type: ignore[no-untyped-call]

    def _close(self) -> None:
        cast("Any", self.transport).loseConnection()
